//! System calls that need no look.

use nix::libc;

/// Whether a call is one on which nothing that is kept depends, and that changes no file.
pub(super) fn is_harmless(number: i64) -> bool {
    HARMLESS.contains(&number) || is_harmless_and_old(number)
}

/// Those that all machines have.
const HARMLESS: [i64; 108] = [
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fadvise64,
    libc::SYS_fchdir,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_futex,
    libc::SYS_get_mempolicy,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getitimer,
    libc::SYS_getpeername,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_kill,
    libc::SYS_madvise,
    libc::SYS_mbind,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pipe2,
    libc::SYS_pkey_alloc,
    libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_pselect6,
    libc::SYS_readahead,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getattr,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_yield,
    libc::SYS_set_mempolicy,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setitimer,
    libc::SYS_setpgid,
    libc::SYS_setpriority,
    libc::SYS_setrlimit,
    libc::SYS_setsid,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_sync_file_range,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    libc::SYS_timer_create,
    libc::SYS_timer_delete,
    libc::SYS_timer_settime,
    libc::SYS_times,
    libc::SYS_tkill,
    libc::SYS_umask,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// Those of x86 that have later ones beside them.
#[cfg(target_arch = "x86_64")]
fn is_harmless_and_old(number: i64) -> bool {
    [
        libc::SYS_alarm,
        libc::SYS_arch_prctl,
        libc::SYS_dup2,
        libc::SYS_epoll_create,
        libc::SYS_epoll_wait,
        libc::SYS_eventfd,
        libc::SYS_fork,
        libc::SYS_getpgrp,
        libc::SYS_pause,
        libc::SYS_pipe,
        libc::SYS_poll,
        libc::SYS_select,
        libc::SYS_time,
        libc::SYS_vfork,
    ]
    .contains(&number)
}

#[cfg(target_arch = "aarch64")]
fn is_harmless_and_old(_number: i64) -> bool {
    false
}

/// What a device or another open file is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// Nothing that counts.
    Harmless,
    /// How a terminal is, if it is one.
    Terminal,
    /// To hold what another holds.
    Clone,
    /// What we don't know.
    Unknown,
}

/// These ask whether it is a terminal, mostly: an older name and a newer.
pub(super) const IS_TERMINAL: [i32; 2] = [0x5401, 0x802c_542a_u32.cast_signed()];

/// What an `ioctl` asks for. The numbers are those of x86 and of ARM.
pub(super) fn control(asked: i32) -> Control {
    const WINDOW_SIZE: i32 = 0x5413;
    const GROUP: i32 = 0x540f;
    const CLOSE_ON_EXEC: [i32; 2] = [0x5450, 0x5451];
    const NON_BLOCKING: i32 = 0x5421;
    // Where a file lies on its disk, and the clone of one.
    const EXTENTS: i32 = 0xc020_660b_u32.cast_signed();
    const CLONE: i32 = 0x4004_9409;
    match asked {
        WINDOW_SIZE | GROUP => Control::Terminal,
        asked if IS_TERMINAL.contains(&asked) => Control::Terminal,
        CLONE => Control::Clone,
        NON_BLOCKING | EXTENTS => Control::Harmless,
        asked if CLOSE_ON_EXEC.contains(&asked) => Control::Harmless,
        _ => Control::Unknown,
    }
}
