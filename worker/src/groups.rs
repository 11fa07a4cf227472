//! Small blobs travel in groups, large ones alone.

use castwork_cas::Digest;

/// Up to this size a blob is small, in bytes.
const SMALL_BYTES_MAX: u64 = 1 << 20;

/// Most bytes of a group, which is in memory at once.
const GROUP_BYTES_MAX: u64 = 4 << 20;

/// Most blobs of a group.
const GROUP_BLOBS_MAX: usize = 1000;

/// Whether a blob travels in a group.
pub(crate) fn is_small(digest: &Digest) -> bool {
    digest.size_bytes() <= SMALL_BYTES_MAX
}

/// Puts small blobs into as few groups as keep the bounds, in order.
pub(crate) fn in_groups<T>(items: Vec<T>, digest_of: impl Fn(&T) -> Digest) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = Vec::new();
    let mut room = 0;
    for item in items {
        let size_bytes = digest_of(&item).size_bytes();
        let is_full = groups.last().is_none_or(|group| group.len() == GROUP_BLOBS_MAX);
        if is_full || size_bytes > room {
            groups.push(Vec::new());
            room = GROUP_BYTES_MAX;
        }
        room = room.saturating_sub(size_bytes);
        groups.last_mut().expect("one was just pushed if there was none").push(item);
    }
    groups
}

#[cfg(test)]
mod tests {
    use castwork_cas::DigestFunction;

    use super::*;

    fn blob(size_bytes: u64) -> Digest {
        Digest::from_hex(DigestFunction::Sha256, &"0".repeat(64), size_bytes).unwrap()
    }

    #[test]
    fn groups_keep_both_bounds_and_lose_nothing() {
        let sizes = |groups: Vec<Vec<Digest>>| groups.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(in_groups(vec![blob(1 << 20); 9], |digest| *digest)), [4, 4, 1]);
        assert_eq!(sizes(in_groups(vec![blob(0); 2001], |digest| *digest)), [1000, 1000, 1]);
        assert!(in_groups(Vec::new(), |digest: &Digest| *digest).is_empty());
    }
}
