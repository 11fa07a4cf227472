/* Gives outputs what no output may have. */
#include "try.h"
#include <sys/xattr.h>

int main(void) {
  int file = open("out", O_CREAT | O_RDWR, 0600);
  TRY("chmod-setuid", chmod("out", 04755));
  TRY("chmod-setgid", chmod("out", 02755));
  TRY("fchmod", fchmod(file, 06755));
  TRY("fchmodat", fchmodat(AT_FDCWD, "out", 04755, 0));
  TRY("fchmodat2", CALL(452, AT_FDCWD, "out", 04755, 0));
  TRY("open", open("made", O_CREAT | O_RDWR, 04755));
  TRY("creat", creat("made", 06755));
  TRY("mknod", mknod("made", S_IFREG | 04755, 0));
  TRY("xattr", setxattr("out", "user.a", "b", 1, 0));
  TRY("fsetxattr", fsetxattr(file, "user.a", "b", 1, 0));
  TRY("overlay", setxattr("out", "user.overlay.redirect", "/etc", 4, 0));
  TRY("capability", setxattr("out", "security.capability", "b", 1, 0));
  TRY("acl", setxattr("out", "system.posix_acl_access", "b", 1, 0));
  fchmod(file, 0777);
}
