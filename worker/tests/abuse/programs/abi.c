/* Calls the kernel by the processor's other interfaces, each in a child of its own. */
#include "try.h"
#include <sys/wait.h>

static void in_child(const char *name, void (*call)(void)) {
  pid_t child = fork();
  if (child == 0) {
    call();
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  printf("%s %s\n", name, WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS ? "SIGSYS" : "DONE");
}

static void i386(void) {
#ifdef __x86_64__
  long number = 20;
  __asm__ volatile("int $0x80" : "+a"(number) : : "r8", "r9", "r10", "r11", "memory");
#else
  raise(SIGSYS);
#endif
}

static void x32(void) {
#ifdef __x86_64__
  CALL(0x40000000 | SYS_getpid);
#else
  raise(SIGSYS);
#endif
}

int main(void) {
  in_child("i386", i386);
  in_child("x32", x32);
}
