//! Which system calls are refused, how, and why.

use nix::libc;

use super::Around;

/// A call that is refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Its number on this processor.
    pub number: u32,
    /// What the caller is told.
    pub errno: i32,
    /// With which arguments.
    pub when: When,
}

/// A condition on arguments. Only their lower halves are looked at: the kernel looks no further.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// Whatever they are.
    Always,
    /// Any of these bits is set.
    AnyOf { argument: u32, bits: u32 },
    /// Any of these bits is set, provided that another argument has any of the bits `wanted`.
    AnyOfIf { argument: u32, bits: u32, flags: u32, wanted: u32 },
    /// It is one of these.
    OneOf { argument: u32, values: &'static [u32] },
    /// It is none of these.
    NoneOf { argument: u32, values: &'static [u32] },
    /// There is no list of which all hold.
    Unless(&'static [&'static [Among]]),
}

/// That an argument, as far as `mask` goes, is one of some values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Among {
    pub argument: u32,
    pub mask: u32,
    pub values: &'static [u32],
}

impl Among {
    const fn new(argument: u32, values: &'static [u32]) -> Self {
        Self { argument, mask: u32::MAX, values }
    }
}

/// Calls that nothing in a build has a use for: they change the machine, or look beyond the action.
const NEVER: &[i64] = &[
    // Mounts, new interface and old.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    457, // statmount
    458, // listmount
    // Other namespaces and other processes' insides.
    libc::SYS_setns,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Large and young parts of the kernel, where most of its holes are.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_memfd_secret,
    libc::SYS_lookup_dcookie,
    459, // lsm_get_self_attr
    460, // lsm_set_self_attr
    461, // lsm_list_modules
    // Keyrings belong to users, and no namespace parts them.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Files by handle, around every path.
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // The machine's own.
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// The same, where there is a processor's own.
#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[i64] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_kexec_file_load,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
    libc::SYS_nfsservctl,
];
#[cfg(target_arch = "aarch64")]
const NEVER_HERE: &[i64] = &[libc::SYS_nfsservctl];

/// Calls that programs can do without: told that the kernel is too old, they take another way.
const ABSENT: &[i64] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Both take their flags by pointer, where no filter sees them.
    libc::SYS_clone3,
    libc::SYS_openat2,
];

/// Extended attributes carry access lists and capabilities of files, and nobody keeps them.
const ATTRIBUTES: &[i64] = &[
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
];

/// `CLONE_NEW…`, all but the one for time, whose bit means something else to `clone`.
const NEW_NAMESPACES: u32 = 0x7e02_0000;
const NEW_TIME: u32 = 0x80;

/// `fchmodat2`, of Linux 6.6, which has this number on every processor; libc does not name it for all of them.
const FCHMODAT2: i64 = 452;

/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;

const CREATES: u32 = libc::O_CREAT.unsigned_abs() | libc::O_TMPFILE.unsigned_abs();

const AF_UNIX: u32 = 1;
/// `AF_INET` and `AF_INET6`, which end at this action's own network namespace.
const AF_INETS: &[u32] = &[2, 10];

/// Streams, datagrams, and raw ones, which need a privilege; what else is in the argument are flags.
const KINDS: Among = Among { argument: 1, mask: 0xf, values: &[1, 2, 3] };

/// What goes with the kind, ICMP, TCP, UDP, and ICMP of IPv6. To ask for another, SCTP or DCCP say, makes the kernel
/// load what nobody on the machine may have a use for.
const PROTOCOLS: Among = Among::new(2, &[0, 1, 6, 17, 58]);

/// The sockets that there are.
const SOCKETS: &[&[Among]] = &[&[Among::new(0, &[AF_UNIX])], &[Among::new(0, AF_INETS), KINDS, PROTOCOLS]];

/// The default, no randomisation of addresses, `linux32`, and the question which it is.
const PERSONALITIES: &[u32] = &[0, 0x004_0000, 8, 0xffff_ffff];

/// `TIOCSTI` types on a terminal as if its user did, `TIOCLINUX` can paste.
const TERMINAL: &[u32] = &[0x5412, 0x541c];

/// Every rule, sorted by number.
pub(super) fn refused(around: Around) -> Vec<Rule> {
    let mut rules = Vec::new();
    always(&mut rules, NEVER, libc::EPERM);
    always(&mut rules, NEVER_HERE, libc::EPERM);
    always(&mut rules, ABSENT, libc::ENOSYS);
    always(&mut rules, ATTRIBUTES, libc::EOPNOTSUPP);
    modes(&mut rules);
    let none_of = |argument, values| When::NoneOf { argument, values };
    let mut add = |call, errno, when| rules.push(rule(call, errno, when));
    add(libc::SYS_clone, libc::EPERM, When::AnyOf { argument: 0, bits: NEW_NAMESPACES });
    add(libc::SYS_unshare, libc::EPERM, When::AnyOf { argument: 0, bits: NEW_NAMESPACES | NEW_TIME });
    add(libc::SYS_personality, libc::EPERM, none_of(0, PERSONALITIES));
    add(libc::SYS_ioctl, libc::EPERM, When::OneOf { argument: 1, values: TERMINAL });
    // Any family's socket is made before the kernel finds that it has no pairs.
    add(libc::SYS_socketpair, libc::EAFNOSUPPORT, none_of(0, &[AF_UNIX]));
    match around {
        Around::Namespaces => add(libc::SYS_socket, libc::EAFNOSUPPORT, When::Unless(SOCKETS)),
        Around::Nothing => shared(&mut rules),
    }
    rules.sort_by_key(|rule| rule.number);
    rules
}

/// What is closed besides where processes, sockets and shared memory are the whole machine's.
fn shared(rules: &mut Vec<Rule>) {
    let ipc = [libc::SYS_shmget, libc::SYS_semget, libc::SYS_msgget, libc::SYS_mq_open];
    always(rules, &ipc, libc::EPERM);
    always(rules, &[libc::SYS_ptrace, libc::SYS_process_mrelease], libc::EPERM);
    // Pipes and socket pairs remain.
    always(rules, &[libc::SYS_socket], libc::EAFNOSUPPORT);
    // A process may do this to itself; 0 stands for that.
    let of_others = [
        (libc::SYS_prlimit64, 0),
        (libc::SYS_sched_setaffinity, 0),
        (libc::SYS_sched_setattr, 0),
        (libc::SYS_sched_setparam, 0),
        (libc::SYS_sched_setscheduler, 0),
        (libc::SYS_setpriority, 1),
        (libc::SYS_ioprio_set, 1),
    ];
    for (call, argument) in of_others {
        rules.push(rule(call, libc::EPERM, When::NoneOf { argument, values: &[0] }));
    }
}

/// No file gets a set-user-id or set-group-id bit, however it is made.
fn modes(rules: &mut Vec<Rule>) {
    let mut add = |call, argument| {
        rules.push(rule(call, libc::EPERM, When::AnyOf { argument, bits: SET_ID }));
    };
    add(libc::SYS_fchmod, 1);
    add(libc::SYS_fchmodat, 2);
    add(FCHMODAT2, 2);
    add(libc::SYS_mknodat, 2);
    // Without one of these flags there is no such argument, but something left in its register.
    let created = |argument, flags| When::AnyOfIf { argument, bits: SET_ID, flags, wanted: CREATES };
    rules.push(rule(libc::SYS_openat, libc::EPERM, created(3, 2)));
    #[cfg(target_arch = "x86_64")]
    {
        let mut add = |call, argument| {
            rules.push(rule(call, libc::EPERM, When::AnyOf { argument, bits: SET_ID }));
        };
        add(libc::SYS_chmod, 1);
        add(libc::SYS_creat, 1);
        add(libc::SYS_mknod, 1);
        rules.push(rule(libc::SYS_open, libc::EPERM, created(2, 1)));
    }
}

fn always(rules: &mut Vec<Rule>, calls: &[i64], errno: i32) {
    rules.extend(calls.iter().map(|call| rule(*call, errno, When::Always)));
}

fn rule(call: i64, errno: i32, when: When) -> Rule {
    Rule { number: u32::try_from(call).expect("numbers of calls are small"), errno, when }
}
