/* Reaches for the network, and for every family of sockets that a network namespace may forget. */
#include "try.h"
#include <arpa/inet.h>
#include <sys/socket.h>

static int reach(int family, int type, const char *host, int port) {
  int s = socket(family, type, 0);
  if (s < 0) return -1;
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET6, host, &six.sin6_addr);
  inet_pton(AF_INET, host, &four.sin_addr);
  struct sockaddr *to = family == AF_INET ? (void *)&four : (void *)&six;
  socklen_t size = family == AF_INET ? sizeof four : sizeof six;
  return sendto(s, "x", 1, MSG_NOSIGNAL, to, size) < 0 && connect(s, to, size) < 0 ? -1 : 0;
}

int main(int argc, char **argv) {
  TRY("worker", reach(AF_INET, SOCK_STREAM, "127.0.0.1", atoi(argv[1])));
  TRY("tcp", reach(AF_INET, SOCK_STREAM, "192.0.2.1", 80));
  TRY("dns", reach(AF_INET, SOCK_DGRAM, "192.0.2.1", 53));
  TRY("tcp6", reach(AF_INET6, SOCK_STREAM, "2001:db8::1", 80));
  TRY("multicast", reach(AF_INET, SOCK_DGRAM, "224.0.0.251", 5353));
  TRY("raw", socket(AF_INET, SOCK_RAW, 1));
  TRY("vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
  TRY("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
  TRY("packet", socket(AF_PACKET, SOCK_RAW, 0));
  TRY("xdp", socket(AF_XDP, SOCK_RAW, 0));
  TRY("alg", socket(AF_ALG, SOCK_SEQPACKET, 0));
  TRY("bluetooth", socket(AF_BLUETOOTH, SOCK_RAW, 0));
  TRY("rds", socket(AF_RDS, SOCK_SEQPACKET, 0));
  TRY("tipc", socket(AF_TIPC, SOCK_STREAM, 0));
  TRY("can", socket(AF_CAN, SOCK_RAW, 1));
  TRY("key", socket(AF_KEY, SOCK_RAW, 2));
  TRY("sctp", socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP));
  TRY("dccp", socket(AF_INET, 6, 0));
  TRY("l2tp", socket(AF_INET6, SOCK_DGRAM, 115));
  int pair[2];
  TRY("tipc-pair", socketpair(AF_TIPC, SOCK_STREAM, 0, pair));
  TRY("vsock-pair", socketpair(AF_VSOCK, SOCK_STREAM, 0, pair));
}
