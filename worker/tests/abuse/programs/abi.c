/* Calls the kernel by the processor's other interfaces, each in a child of its own. */
#include "try.h"
#include <sys/wait.h>

/* `call` asks for the number of the process by that interface. A kernel without it ends the child otherwise, or (User Mode
   Linux) takes the number for one of its own calls. */
static void in_child(const char *name, long (*call)(void)) {
  pid_t child = fork();
  if (child == 0) _exit(call() == getpid());
  int status;
  waitpid(child, &status, 0);
  int is_refused = WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
  int is_done = WIFEXITED(status) && WEXITSTATUS(status) == 1;
  printf("%s %s\n", name, is_refused ? "SIGSYS" : is_done ? "DONE" : "unknown to this kernel");
}

static long i386(void) {
#ifdef __x86_64__
  long number = 20;
  __asm__ volatile("int $0x80" : "+a"(number) : : "r8", "r9", "r10", "r11", "memory");
  return number;
#else
  return raise(SIGSYS);
#endif
}

static long x32(void) {
#ifdef __x86_64__
  return CALL(0x40000000 | SYS_getpid);
#else
  return raise(SIGSYS);
#endif
}

int main(void) {
  in_child("i386", i386);
  in_child("x32", x32);
}
