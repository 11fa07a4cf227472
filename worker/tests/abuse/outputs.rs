//! E4 to E7: outputs that are something else than they look.

use castwork_proto::rpc::Code;

use crate::common::farm::{Farm, code};
use crate::common::{filters_only, write_down};

/// Runs scripts that make the output `out` one after the other; each has to be refused, with a text.
async fn refuses(attack: &str, attempts: &[(&str, &str)]) {
    let Some(mut farm) = Farm::set().await else { return };
    for (number, (script, reason)) in attempts.iter().enumerate() {
        let outcome = farm.run(farm.lease(&number.to_string(), &[], script, &["out"])).await;
        let (code, message) = code(&outcome);
        assert_eq!(code, Code::FailedPrecondition, "{script}: {message}");
        assert!(message.contains("`out") && message.contains(reason), "{script}: {message}");
        let result = outcome.result.unwrap();
        assert!(result.output_files.is_empty() && result.output_symlinks.is_empty(), "{script}");
    }
    leaves_a_clean_slot(&mut farm).await;
    write_down(attack, &farm.session.hello.sandbox);
}

async fn leaves_a_clean_slot(farm: &mut Farm) {
    for id in ["next", "after"] {
        let (script, clean) = if filters_only() {
            ("ls -A . $TMPDIR | grep -v :", "in\n\n")
        } else {
            ("ls -A . /tmp /dev/shm", ".:\nin\n\n/dev/shm:\n\n/tmp:\n")
        };
        let outcome = farm.run(farm.lease(id, &[("in", "x")], script, &[])).await;
        let said = farm.text(outcome.result.unwrap().stdout_digest.as_ref());
        assert_eq!(said, clean);
    }
}

#[tokio::test]
async fn e4_a_symlink_to_a_file_of_the_worker() {
    let reason = "symlink out of the input root";
    refuses("E4", &[("ln -s /etc/passwd out", reason), ("ln -s /proc/self/exe out", reason)]).await;
}

#[tokio::test]
async fn e5_symlinks_that_climb_and_chains_of_them() {
    let reason = "symlink out of the input root";
    let attempts = [
        ("ln -s ../../../../etc/passwd out", reason),
        ("mkdir out && ln -s ../../etc/passwd out/a", reason),
        ("mkdir -p out/a && ln -s ../../../etc out/a/b && ln -s a/b out/c", reason),
        ("mkdir out && ln -s /etc out/a && ln -s a/passwd out/b", reason),
    ];
    refuses("E5", &attempts).await;
}

#[tokio::test]
async fn e6_a_folder_that_is_swapped_for_a_symlink_while_it_is_collected() {
    let Some(mut farm) = Farm::set().await else { return };
    let script = "mkdir out real; echo own > out/passwd
        cat > swap.c <<'END'
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) { for (;;) syscall(SYS_renameat2, -100, \"out\", -100, \"link\", 2); }
END
        ln -s /etc link; cc swap.c -o swap; (setsid ./swap >/dev/null 2>&1 &); sleep 0.1";
    for id in ["1", "2", "3", "4", "5"] {
        let outcome = farm.run(farm.lease(id, &[], script, &["out"])).await;
        // Whichever it was at the end: nobody swaps any more.
        match code(&outcome).0 {
            Code::Ok => {
                let result = outcome.result.unwrap();
                let tree = farm.scheduler.get(result.output_directories[0].tree_digest.as_ref());
                let own = castwork_cas::Digest::of(crate::common::scheduler::FUNCTION, b"own\n").hash_hex();
                assert!(String::from_utf8_lossy(&tree).contains(&own));
            }
            code => assert_eq!(code, Code::FailedPrecondition),
        }
    }
    leaves_a_clean_slot(&mut farm).await;
    write_down("E6", &farm.session.hello.sandbox);
}

#[tokio::test]
async fn e7_what_is_no_file() {
    let socket = "cat > s.c <<'END'
#include <sys/socket.h>
#include <sys/un.h>
int main(void) {
  struct sockaddr_un at = {AF_UNIX, \"out\"};
  return bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&at, sizeof at);
}
END
        cc -w s.c -o s && ./s || mkfifo out";
    // Nothing of it is on the disk: the size that it claims counts.
    let sparse = "truncate -s 10T out 2>/dev/null || truncate -s 10G out";
    let attempts = [
        ("mkfifo out", "a FIFO"),
        (socket, "can't be an output"),
        ("mkdir out; mkfifo out/x", "a FIFO"),
        (sparse, "bytes"),
    ];
    refuses("E7", &attempts).await;
}
