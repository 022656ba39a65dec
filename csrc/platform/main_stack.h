// main_stack.h: the stack of a process's first thread is the one that Linux maps as it grows. Where
// the address space is limited (ulimit -v) and used up, the next deep call ends the process with
// SIGSEGV, in any code, JavaScript's included; so it is grown while there is room.
#pragma once

namespace polylm {

// On the first thread of a Linux process: grows its stack to what JavaScript may use, unless the
// limits leave no room for that. Elsewhere nothing.
void grow_main_stack();

}  // namespace polylm
