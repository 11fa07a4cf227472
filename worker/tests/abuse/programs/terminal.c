/* Types into a terminal that it may have inherited, and looks for another. */
#include "try.h"
#include <sys/ioctl.h>

int main(void) {
  for (int fd = 0; fd < 3; fd++) {
    char letter = 'x', paste = 3;
    TRY("is-a-terminal", isatty(fd) ? 0 : -1);
    TRY("TIOCSTI", ioctl(fd, TIOCSTI, &letter));
    TRY("TIOCLINUX", ioctl(fd, TIOCLINUX, &paste));
    TRY("TIOCSCTTY", ioctl(fd, TIOCSCTTY, 1));
  }
  TRY("tty", open("/dev/tty", O_RDWR));
  TRY("console", open("/dev/console", O_RDWR));
  TRY("ptmx", open("/dev/ptmx", O_RDWR));
  TRY("pts", open("/dev/pts/0", O_RDWR));
  TRY("tty0", open("/dev/tty0", O_RDWR));
}
