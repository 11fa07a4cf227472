/* Calls into the parts of the kernel where most of its holes were. */
#include "try.h"

int main(void) {
  char zeros[256] = {0};
  TRY("io_uring_setup", CALL(425, 1, zeros));
  TRY("io_uring_enter", CALL(426, 0, 0, 0, 0, 0, 0));
  TRY("bpf", CALL(SYS_bpf, 0, zeros, sizeof zeros));
  TRY("userfaultfd", CALL(SYS_userfaultfd, 0));
  TRY("perf_event_open", CALL(SYS_perf_event_open, zeros, 0, -1, -1, 0));
  TRY("add_key", CALL(SYS_add_key, "user", "a", "b", 1, -4));
  TRY("keyctl", CALL(SYS_keyctl, 0, -3, 1));
  TRY("request_key", CALL(SYS_request_key, "user", "a", 0, 0));
  TRY("open_by_handle_at", CALL(SYS_open_by_handle_at, -100, zeros, 0));
  TRY("name_to_handle_at", CALL(SYS_name_to_handle_at, -100, "/", zeros, zeros, 0));
  TRY("fanotify_init", CALL(SYS_fanotify_init, 0, 0));
  TRY("memfd_secret", CALL(447, 0));
  TRY("kexec_load", CALL(SYS_kexec_load, 0, 0, 0, 0));
  TRY("init_module", CALL(SYS_init_module, zeros, 1, ""));
  TRY("finit_module", CALL(SYS_finit_module, 0, "", 0));
  TRY("quotactl", CALL(SYS_quotactl, 0, 0, 0, 0));
  TRY("swapon", CALL(SYS_swapon, "/tmp", 0));
  TRY("reboot", CALL(SYS_reboot, 0xfee1dead, 672274793, 0, 0));
  TRY("acct", CALL(SYS_acct, 0));
  TRY("syslog", CALL(SYS_syslog, 3, zeros, sizeof zeros));
  TRY("kcmp", CALL(SYS_kcmp, 1, 1, 0, 0, 0));
  TRY("pidfd_getfd", CALL(438, 0, 0, 0));
  TRY("move_pages", CALL(SYS_move_pages, 0, 0, 0, 0, 0, 0));
  TRY("personality", CALL(SYS_personality, 0x0400000));
  TRY("younger-than-the-filter", CALL(499, 0));
#ifdef __x86_64__
  TRY("modify_ldt", CALL(SYS_modify_ldt, 0, zeros, 8));
  TRY("iopl", CALL(SYS_iopl, 3));
  TRY("ioperm", CALL(SYS_ioperm, 0x80, 1, 1));
#endif
}
