/* Two actions that want to meet: `serve` leaves something everywhere and waits, `join` looks for it. */
#include "try.h"
#include <arpa/inet.h>
#include <linux/in6.h>
#include <mqueue.h>
#include <stddef.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>

static int meet(int is_server, const char *name, int is_abstract) {
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  if (s < 0) return -1;
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  strcpy(at.sun_path + is_abstract, name);
  socklen_t size = offsetof(struct sockaddr_un, sun_path) + is_abstract + strlen(name);
  if (!is_server) return connect(s, (void *)&at, size);
  return bind(s, (void *)&at, size) < 0 ? -1 : listen(s, 1);
}

static void leave(void) {
  meet(1, "castwork-handover", 1);
  meet(1, "/tmp/handover", 0);
  meet(1, "/dev/shm/handover", 0);
  meet(1, "handover", 0);
  shmget(4711, 4096, IPC_CREAT | 0666);
  semget(4711, 1, IPC_CREAT | 0666);
  msgget(4711, IPC_CREAT | 0666);
  mq_open("/handover", O_CREAT | O_RDWR, 0666, NULL);
  shm_open("/shared", O_CREAT | O_RDWR, 0666);
  mkfifo("/tmp/fifo", 0666);
  CALL(SYS_add_key, "user", "handover", "x", 1, -4);
  fcntl(0, F_SETFL, O_NONBLOCK | O_APPEND);
  flock(0, LOCK_EX);
  /* Stays for a while without anybody's doing. */
  struct in6_flowlabel_req label = {
      .flr_dst.s6_addr[15] = 1, .flr_label = htonl(4711), .flr_action = IPV6_FL_A_GET,
      .flr_share = IPV6_FL_S_ANY, .flr_flags = IPV6_FL_F_CREATE, .flr_linger = 60};
  setsockopt(socket(AF_INET6, SOCK_DGRAM, 0), IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, &label, sizeof label);
}

int main(int argc, char **argv) {
  if (argv[1][0] == 's') {
    leave();
    puts("ready");
    fflush(stdout);
    for (;;) pause();
  }
  TRY("abstract", meet(0, "castwork-handover", 1));
  TRY("tmp", meet(0, "/tmp/handover", 0));
  TRY("shm-socket", meet(0, "/dev/shm/handover", 0));
  TRY("inputs", meet(0, "handover", 0));
  TRY("sysv-shm", shmget(4711, 0, 0));
  TRY("sysv-sem", semget(4711, 0, 0));
  TRY("sysv-msg", msgget(4711, 0));
  TRY("mqueue", (long)mq_open("/handover", O_RDWR));
  TRY("shm", shm_open("/shared", O_RDWR, 0));
  TRY("fifo", open("/tmp/fifo", O_RDWR));
  TRY("key", CALL(SYS_request_key, "user", "handover", 0, -4));
}
