//! What the kernel says by way of files: of the machine, of a process, of its open files.

use std::path::Path;

use super::process::Process;

/// What it says of the machine and of all processes, which tools read to be faster or to find themselves.
const MACHINE: [&str; 7] = [
    "/proc/filesystems",
    "/proc/meminfo",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/kernel/cap_last_cap",
    "/sys/devices/system/cpu/",
    "/sys/devices/system/node/",
    "/sys/kernel/mm/transparent_hugepage/",
];

/// The same of the files in a process's own folder.
const OWN: [&str; 4] = ["maps", "stat", "status", "auxv"];

/// Folders of the same that a process may list: its open files and its threads.
const OWN_LISTS: [&str; 2] = ["fd", "task"];

/// Links of the same, which say what is known otherwise.
const OWN_LINKS: [&str; 3] = ["cwd", "root", "exe"];

/// What a path that says something else to each process, or at each time, is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum About {
    /// Nothing that counts.
    Nothing,
    /// A file like any other.
    File,
    /// One of the caller's open files, or its standard input or output.
    Open(u64),
    /// What may count, and can't be told later.
    Unknown,
}

/// Whether a path says something else to each process, or at each time.
pub(super) fn is_of_kernel(path: &str) -> bool {
    // Written in any way; one that gets there by a link is found out when what was looked at is walked.
    let mut parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    match parts.next() {
        Some("proc" | "sys") => true,
        Some("dev") => {
            parts.next().is_some_and(|name| ["fd", "stdin", "stdout", "stderr", "tty"].contains(&name))
        }
        _ => false,
    }
}

/// What such a path is about when it is looked at.
pub(super) fn about(process: Process, path: &str) -> About {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return About::Unknown;
    }
    let open = |descriptor: &str| descriptor.parse().map_or(About::Unknown, About::Open);
    match parts[..] {
        ["dev", "fd"] | ["proc" | "sys"] => About::Nothing,
        ["dev", "stdin"] => About::Open(0),
        ["dev", "stdout"] => About::Open(1),
        ["dev", "stderr"] => About::Open(2),
        ["dev", "fd", descriptor] => open(descriptor),
        ["proc", of, ref rest @ ..] if is_process(of) => {
            if !is_own(process, of) {
                return About::Unknown;
            }
            match rest {
                [] => About::Nothing,
                ["fd", descriptor] => open(descriptor),
                [file] if [&OWN[..], &OWN_LISTS, &OWN_LINKS].iter().any(|known| known.contains(file)) => {
                    About::Nothing
                }
                _ => About::Unknown,
            }
        }
        ["proc" | "sys", ..] => {
            let path = format!("/{}", parts.join("/"));
            if is_of_machine(&path) {
                return About::Nothing;
            }
            // What is not there, or a folder, is so until the machine is set up in another way.
            match Path::new(&path).symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => About::File,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => About::File,
                _ => About::Unknown,
            }
        }
        _ => About::Unknown,
    }
}

/// Whether nothing depends on what a file of the kernel says that was opened, by its true name.
pub(super) fn may_be_read(process: Process, path: &str) -> bool {
    is_of_machine(path) || own_file(process, path).is_some_and(|file| OWN.contains(&file))
}

/// Whether nothing depends on the names in a folder of the kernel, by its true name.
pub(super) fn may_be_listed(process: Process, path: &str) -> bool {
    is_of_machine(&format!("{path}/"))
        || own_file(process, path).is_some_and(|file| OWN_LISTS.contains(&file))
}

fn is_of_machine(path: &str) -> bool {
    MACHINE.iter().any(|known| {
        path == *known
            || path == known.trim_end_matches('/')
            || (known.ends_with('/') && path.starts_with(known))
    })
}

/// The name of a file in the process's own folder.
fn own_file(process: Process, path: &str) -> Option<&str> {
    let (of, file) = path.strip_prefix("/proc/")?.split_once('/')?;
    is_own(process, of).then_some(file)
}

fn is_process(name: &str) -> bool {
    ["self", "thread-self"].contains(&name) || name.parse::<i32>().is_ok()
}

/// Whether a name in `/proc` is that of the process itself, whichever of its threads asks.
fn is_own(process: Process, name: &str) -> bool {
    let own = process.0.to_string();
    ["self", "thread-self"].contains(&name)
        || name == own
        || (name.parse::<i32>().is_ok() && Path::new(&format!("/proc/{own}/task/{name}")).exists())
}
