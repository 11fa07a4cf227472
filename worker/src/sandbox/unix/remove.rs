//! Removing whatever an action left: unreadable folders, and chains deeper than any stack.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::Folder;

/// How deep to descend before a folder is first moved up to the top, which bounds both the stack
/// and the descriptors held.
const DEPTH_MAX: usize = 32;

/// Removes a folder and everything in it, following no symlink.
///
/// Differs from `std::fs::remove_dir_all` in that folders without permission bits and nesting
/// without end don't stop it. No error if there is no such folder.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match open_top(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        top => top?,
    };
    let mut moved_up = 0;
    loop {
        let before = moved_up;
        empty(&top.as_fd(), &top.as_fd(), 0, &mut moved_up)?;
        if moved_up == before {
            break;
        }
    }
    std::fs::remove_dir(path)
}

fn open_top(path: &Path) -> io::Result<Folder> {
    match Folder::open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            super::set_mode(path, 0o700)?;
            Folder::open(path)
        }
        top => {
            // Removing names takes write permission, which the folder may lack though it opens.
            super::set_mode(path, 0o700)?;
            top
        }
    }
}

fn empty(folder: &impl AsFd, top: &impl AsFd, depth: usize, moved_up: &mut u64) -> Result<(), Errno> {
    let own = openat(folder, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    for entry in Dir::from_fd(own)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match mode_of_folder(folder, name)? {
            Some(mode) => {
                if !mode.contains(Mode::S_IRWXU) {
                    // Nobody is left who could swap the folder for a symlink between these steps.
                    fchmodat(folder, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
                }
                remove_folder(folder, name, top, depth, moved_up)?;
            }
            None => unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)?,
        }
    }
    Ok(())
}

/// What may be done with a folder; `None` if it is something else.
fn mode_of_folder(folder: &impl AsFd, name: &CStr) -> Result<Option<Mode>, Errno> {
    let stat = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let is_folder = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    Ok(is_folder.then(|| Mode::from_bits_truncate(stat.st_mode)))
}

fn remove_folder(
    parent: &impl AsFd,
    name: &CStr,
    top: &impl AsFd,
    depth: usize,
    moved_up: &mut u64,
) -> Result<(), Errno> {
    if depth == DEPTH_MAX {
        *moved_up += 1;
        // Names an action chose can't be in the way: `renameat` onto a folder that isn't empty
        // fails, and then another number is tried.
        loop {
            let place = CString::new(format!(".moved-up-{moved_up}")).expect("no NUL in a number");
            match renameat(parent, name, top, place.as_c_str()) {
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => *moved_up += 1,
                done => return done,
            }
        }
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = openat(parent, name, flags, Mode::empty())?;
    empty(&folder, top, depth + 1, moved_up)?;
    unlinkat(parent, name, UnlinkatFlags::RemoveDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_without_permissions_go_too_and_symlinks_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("kept"), "x").unwrap();
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        std::fs::create_dir_all(tree.join("closed/inner")).unwrap();
        std::fs::write(tree.join("closed/inner/file"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), tree.join("closed/link")).unwrap();
        super::super::set_mode(&tree.join("closed/inner"), 0).unwrap();
        super::super::set_mode(&tree.join("closed"), 0).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.path().join("kept").exists());
        remove_tree(&tree).unwrap();
    }

    #[test]
    fn nesting_deeper_than_any_path_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let mut folder = Folder::open(&tree).unwrap();
        for _ in 0..3_000 {
            nix::sys::stat::mkdirat(folder.as_fd(), "deep", Mode::S_IRWXU).unwrap();
            folder = folder.folder("deep").unwrap();
        }
        drop(folder);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
