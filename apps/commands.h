// The commands of the program, one per file of this folder, each of which declares its options and
// what it runs (command_line.h). To add one: declare it here, add it to the list in main.cc.
#pragma once

#include "command_line.h"

namespace wideload::apps {

void AddGenerate(Command program);
void AddChat(Command program);
void AddServe(Command program);
void AddLogits(Command program);
void AddEval(Command program);
void AddTokenize(Command program);
void AddApplyTemplate(Command program);
void AddInspect(Command program);
void AddBench(Command program);
void AddDemo(Command program);
void AddEplb(Command program);
void AddDoctor(Command program);
void AddPlanLayout(Command program);
void AddConfig(Command program);

}  // namespace wideload::apps
