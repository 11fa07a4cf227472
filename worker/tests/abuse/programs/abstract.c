/* Connects to a socket that has a name but no file, of whoever listens there; and to one that has a file. */
#include "try.h"
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static int reach(const char *name, int is_abstract) {
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  if (s < 0) return -1;
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  strcpy(to.sun_path + is_abstract, name);
  return connect(s, (void *)&to, offsetof(struct sockaddr_un, sun_path) + is_abstract + strlen(name));
}

int main(int argc, char **argv) {
  TRY("abstract", reach(argv[1], 1));
  TRY("file", reach(argv[2], 0));
  TRY("docker", reach("/run/docker.sock", 0));
}
