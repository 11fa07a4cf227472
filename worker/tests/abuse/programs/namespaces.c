/* Asks for namespaces and mounts by every interface there is. */
#include "try.h"
#include <linux/sched.h>
#include <sched.h>
#include <sys/mount.h>

static long fork_into(long flags) {
  long child = CALL(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
  if (child == 0) _exit(0);
  return child;
}

static long fork_into_3(uint64_t flags) {
  struct clone_args arguments = {.flags = flags, .exit_signal = SIGCHLD};
  long child = CALL(SYS_clone3, &arguments, sizeof arguments);
  if (child == 0) _exit(0);
  return child;
}

static long enter(const char *kind) {
  char path[64];
  sprintf(path, "/proc/1/ns/%s", kind);
  int ns = open(path, O_RDONLY);
  return ns < 0 ? -1 : setns(ns, 0);
}

int main(void) {
  static const long kinds[] = {CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWPID, CLONE_NEWNET,
                               CLONE_NEWIPC,  CLONE_NEWUTS, CLONE_NEWCGROUP};
  for (int i = 0; i < 7; i++) {
    TRY("unshare", unshare(kinds[i]));
    TRY("clone", fork_into(kinds[i]));
    TRY("clone3", fork_into_3(kinds[i]));
  }
  TRY("time", unshare(0x80));
  TRY("setns-user", enter("user"));
  TRY("setns-mnt", enter("mnt"));
  TRY("setns-net", enter("net"));
  TRY("mount", mount("tmpfs", "/tmp", "tmpfs", 0, NULL));
  TRY("bind", mount("/", "/tmp", NULL, MS_BIND, NULL));
  TRY("remount", mount(NULL, "/usr", NULL, MS_REMOUNT | MS_BIND, NULL));
  TRY("umount", umount2("/usr", MNT_DETACH));
  TRY("pivot_root", CALL(SYS_pivot_root, ".", "."));
  TRY("chroot", chroot("/tmp"));
  TRY("open_tree", CALL(428, -100, "/", 1));
  TRY("move_mount", CALL(429, -100, "/usr", -100, "/tmp", 0));
  TRY("fsopen", CALL(430, "tmpfs", 0));
  TRY("fspick", CALL(433, -100, "/", 0));
  TRY("mount_setattr", CALL(442, -100, "/", 0, 0, 0));
  TRY("statmount", CALL(457, 0, 0, 0, 0));
}
