use super::*;

/// What the filter answers, found out by running it as the kernel would.
fn answer(filter: &Filter, architecture: u32, number: u32, arguments: [u32; 6]) -> u32 {
    let load = |offset: u32| match offset {
        0 => number,
        4 => architecture,
        offset => arguments[(offset as usize - 16) / 8],
    };
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = filter.0[at];
        at += 1;
        let test = match u32::from(code) {
            0x20 => {
                accumulator = load(k);
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x06 => return k,
            0x05 => {
                at += k as usize;
                continue;
            }
            0x15 => accumulator == k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if test { jt } else { jf });
    }
}

const NATIVE: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

fn errno(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()
}

fn of(call: i64) -> u32 {
    u32::try_from(call).unwrap()
}

#[test]
fn every_rule_is_found_and_no_other_call_is_touched() {
    for around in [Around::Namespaces, Around::Nothing] {
        let (filter, rules) = (Filter::new(around), calls::refused(around));
        for number in 0..program::UNKNOWN {
            let wanted = rules.iter().find(|rule| rule.number == number);
            let said = answer(&filter, NATIVE, number, [0; 6]);
            match wanted {
                Some(rule) if matches!(rule.when, calls::When::Always) => assert_eq!(said, errno(rule.errno)),
                Some(_) => {}
                None => assert_eq!(said, ALLOW, "{number}"),
            }
        }
    }
}

#[test]
fn other_abis_are_killed_and_younger_calls_are_unknown() {
    let filter = Filter::new(Around::Namespaces);
    let i386 = 0x4000_0003;
    assert_eq!(answer(&filter, i386, 1, [0; 6]), KILL);
    assert_eq!(answer(&filter, NATIVE, 0x4000_0000, [0; 6]), KILL);
    assert_eq!(answer(&filter, NATIVE, program::UNKNOWN, [0; 6]), errno(libc::ENOSYS));
}

#[test]
fn arguments_decide_where_a_call_has_good_uses_too() {
    let filter = Filter::new(Around::Namespaces);
    let says = |call, arguments| answer(&filter, NATIVE, of(call), arguments);
    let refused = errno(libc::EPERM);
    assert_eq!(says(libc::SYS_clone, [0x1100, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(says(libc::SYS_clone, [0x1000_0011, 0, 0, 0, 0, 0]), refused);
    assert_eq!(says(libc::SYS_unshare, [0x400, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(says(libc::SYS_unshare, [0x80, 0, 0, 0, 0, 0]), refused);
    assert_eq!(says(libc::SYS_fchmod, [1, 0o755, 0, 0, 0, 0]), ALLOW);
    assert_eq!(says(libc::SYS_fchmod, [1, 0o4755, 0, 0, 0, 0]), refused);
    let flags = of(i64::from(libc::O_CREAT | libc::O_WRONLY));
    assert_eq!(says(libc::SYS_openat, [0, 0, flags, 0o644, 0, 0]), ALLOW);
    assert_eq!(says(libc::SYS_openat, [0, 0, flags, 0o4755, 0, 0]), refused);
    assert_eq!(says(libc::SYS_openat, [0, 0, 0, 0o4755, 0, 0]), ALLOW);
    assert_eq!(says(libc::SYS_socket, [2, 1, 0, 0, 0, 0]), ALLOW);
    assert_eq!(says(libc::SYS_socket, [40, 1, 0, 0, 0, 0]), errno(libc::EAFNOSUPPORT));
    for allowed in [[1, 1, 0], [1, 5, 0], [2, 1, 6], [2, 0x80002, 17], [10, 0x802, 58], [10, 0x80801, 0]] {
        let [family, kind, protocol] = allowed;
        assert_eq!(says(libc::SYS_socket, [family, kind, protocol, 0, 0, 0]), ALLOW, "{allowed:?}");
    }
    // SCTP, DCCP, L2TP, SMC; the first two by their kind alone.
    for other in [[2, 1, 132], [10, 6, 33], [2, 2, 115], [10, 1, 256], [2, 5, 0], [2, 0x80006, 0]] {
        let [family, kind, protocol] = other;
        let said = says(libc::SYS_socket, [family, kind, protocol, 0, 0, 0]);
        assert_eq!(said, errno(libc::EAFNOSUPPORT), "{other:?}");
    }
    assert_eq!(says(libc::SYS_socketpair, [1, 1, 0, 0, 0, 0]), ALLOW);
    assert_eq!(says(libc::SYS_socketpair, [40, 1, 0, 0, 0, 0]), errno(libc::EAFNOSUPPORT));
    assert_eq!(says(libc::SYS_ioctl, [0, 0x5401, 0, 0, 0, 0]), ALLOW);
    assert_eq!(says(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0]), refused);
    assert_eq!(says(libc::SYS_personality, [0x0004_0000, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(says(libc::SYS_personality, [0x0040_0000, 0, 0, 0, 0, 0]), refused);
}

#[test]
fn without_namespaces_nothing_reaches_another_process_or_a_network() {
    let filter = Filter::new(Around::Nothing);
    let says = |call, arguments| answer(&filter, NATIVE, of(call), arguments);
    assert_eq!(says(libc::SYS_socket, [1, 1, 0, 0, 0, 0]), errno(libc::EAFNOSUPPORT));
    assert_eq!(says(libc::SYS_socketpair, [1, 1, 0, 0, 0, 0]), ALLOW);
    assert_eq!(says(libc::SYS_socketpair, [30, 1, 0, 0, 0, 0]), errno(libc::EAFNOSUPPORT));
    assert_eq!(says(libc::SYS_prlimit64, [0; 6]), ALLOW);
    assert_eq!(says(libc::SYS_prlimit64, [1, 0, 0, 0, 0, 0]), errno(libc::EPERM));
}
