//! [`largest`]: the folders of an input tree that matter for where an action is run.

use std::collections::HashMap;

use castwork_cas::Digest;
use castwork_cas::merkle::FlatTree;

/// Folders of an action that are remembered.
const FOLDERS_MAX: usize = 4;

/// What is smaller is fetched faster than thought about.
const BYTES_MIN: u64 = 256 << 10;

/// How deep below the root it is looked for them: a toolchain is one of the outermost folders.
const DEPTH_MAX: usize = 2;

/// The largest folders below the root with the bytes in them, by the start of their digest, the largest first.
pub(super) fn largest(tree: &FlatTree) -> Vec<(u64, u64)> {
    let mut sizes = HashMap::new();
    let mut found = HashMap::new();
    let mut level = vec![tree.root];
    for _ in 0..DEPTH_MAX {
        let parents = std::mem::take(&mut level);
        for parent in parents.iter().filter_map(|digest| tree.directory(digest)) {
            for child in &parent.directories {
                let bytes = bytes_of(tree, &child.digest, &mut sizes);
                if bytes >= BYTES_MIN && found.insert(child.digest, bytes).is_none() {
                    level.push(child.digest);
                }
            }
        }
    }
    let mut found: Vec<_> = found.into_iter().map(|(digest, bytes)| (bytes, short(&digest))).collect();
    found.sort_unstable_by(|one, other| other.cmp(one));
    found.truncate(FOLDERS_MAX);
    found.into_iter().map(|(bytes, folder)| (folder, bytes)).collect()
}

/// Bytes of the files in a folder, with those in its folders; no deeper than trees may be.
fn bytes_of(tree: &FlatTree, digest: &Digest, sizes: &mut HashMap<Digest, u64>) -> u64 {
    if let Some(bytes) = sizes.get(digest) {
        return *bytes;
    }
    let Some(folder) = tree.directory(digest) else { return 0 };
    let files = folder.files.iter().map(|file| file.digest.size_bytes());
    let mut bytes = files.fold(0, u64::saturating_add);
    for child in &folder.directories {
        bytes = bytes.saturating_add(bytes_of(tree, &child.digest, sizes));
    }
    sizes.insert(*digest, bytes);
    bytes
}

fn short(digest: &Digest) -> u64 {
    let start = digest.hash().first_chunk::<8>().expect("a hash has 32 bytes or more");
    u64::from_be_bytes(*start)
}
