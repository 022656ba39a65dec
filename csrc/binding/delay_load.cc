// delay_load.cc: on Windows the addon names node.exe as the library that has N-API. The program may
// have another name (Electron, a renamed node): this hook answers with the program itself.
// Not here: anything for other systems, where the program's symbols are found without a name.
#if defined(_WIN32)

#include <windows.h>

#include <delayimp.h>

#include <cstring>

static FARPROC WINAPI answer_with_program(unsigned event, DelayLoadInfo* info) {
  if (event != dliNotePreLoadLibrary || _stricmp(info->szDll, "node.exe") != 0) return nullptr;
  return reinterpret_cast<FARPROC>(GetModuleHandleA(nullptr));
}

PfnDliHook __pfnDliNotifyHook2 = answer_with_program;

#endif
