//! Who runs actions: never the root of the machine.

use nix::unistd::geteuid;

/// User and group that a worker started as root gives to its actions. It lies above the ids of
/// people and below those that systemd hands out, and fits the 65,536 ids of a container.
const ACTION_ID: u32 = 60_600;

/// The user and group to become, or `None` if the worker's own will do; else the reason why
/// neither will.
pub(super) fn for_actions() -> Result<Option<(u32, u32)>, String> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let read = |path| std::fs::read_to_string(path).map_err(|error| format!("can't read `{path}`: {error}"));
    let (users, groups) = (read("/proc/self/uid_map")?, read("/proc/self/gid_map")?);
    if is_mapped(&users, ACTION_ID) && is_mapped(&groups, ACTION_ID) {
        return Ok(Some((ACTION_ID, ACTION_ID)));
    }
    // Root of a user namespace that has few ids is nobody in particular outside.
    if outer_of(&users, 0) == Some(0) {
        return Err(format!("user id {ACTION_ID}, which actions are to run as, is not available"));
    }
    Ok(None)
}

fn ranges(map: &str) -> impl Iterator<Item = (u32, u32, u32)> {
    map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
    })
}

fn outer_of(map: &str, id: u32) -> Option<u32> {
    ranges(map)
        .find(|(inner, _, count)| id >= *inner && id - inner < *count)
        .map(|(inner, outer, _)| outer + (id - inner))
}

fn is_mapped(map: &str, id: u32) -> bool {
    outer_of(map, id).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_looked_up_in_the_kernels_table() {
        let host = "         0          0 4294967295\n";
        assert!(is_mapped(host, ACTION_ID));
        assert_eq!(outer_of(host, 0), Some(0));
        let container = "0 100000 65536\n";
        assert!(is_mapped(container, ACTION_ID));
        let alone = "0 1000 1\n";
        assert!(!is_mapped(alone, ACTION_ID));
        assert_eq!(outer_of(alone, 0), Some(1000));
    }
}
