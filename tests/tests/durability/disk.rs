//! [`Mount`]: a small file system of its own, where the system lets us have one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use castwork_tests::skip;

/// Whether file systems of these kinds can be made and mounted here; if not, the test is skipped.
pub(crate) fn can_mount(test: &str, kinds: &[&str]) -> bool {
    if !cfg!(target_os = "linux") {
        skip(test, "mounting a file system of its own takes Linux");
        return false;
    }
    let is_root = succeeds(Command::new("losetup").arg("--find"));
    if !is_root {
        skip(test, "mounting takes root and a loop device");
        return false;
    }
    kinds.iter().all(|kind| castwork_tests::have(test, &format!("mkfs.{kind}")))
}

/// A mounted file. Unmounted when it is dropped; the file stays.
pub(crate) struct Mount {
    path: PathBuf,
}

impl Mount {
    /// Makes a file system of `megabytes` in a file below `folder`, and mounts it.
    pub(crate) fn new(folder: &Path, name: &str, kind: &str, megabytes: u64) -> Option<Self> {
        Self::on(&folder.join(format!("{name}.img")), &folder.join(name), kind, megabytes, &[])
    }

    /// As [`Mount::new`], with the file and the place to mount it, and what `mkfs` is told besides.
    pub(crate) fn on(
        image: &Path,
        path: &Path,
        kind: &str,
        megabytes: u64,
        options: &[&str],
    ) -> Option<Self> {
        File::create(image).unwrap().set_len(megabytes << 20).unwrap();
        let made = succeeds(Command::new(format!("mkfs.{kind}")).arg("-q").args(options).arg(image));
        if made { Self::existing(image, path, kind) } else { None }
    }

    /// Mounts a file that holds a file system.
    pub(crate) fn existing(image: &Path, path: &Path, kind: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        // A clone has the identity of what it was cloned from.
        let options = match kind {
            "xfs" => "loop,nouuid",
            "ext4" => "loop,errors=remount-ro",
            _ => "loop",
        };
        let mounted = succeeds(Command::new("mount").args(["-o", options]).arg(image).arg(path));
        mounted.then(|| Self { path: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Has nobody write to a folder by its path any more; what is open already stays as it is.
    pub(crate) fn read_only(folder: &Path) -> Option<Self> {
        let mount = |options: &[&str]| succeeds(Command::new("mount").args(options).arg(folder));
        let bound = succeeds(Command::new("mount").arg("--bind").arg(folder).arg(folder));
        let bound = bound.then(|| Self { path: folder.to_owned() })?;
        mount(&["-o", "remount,bind,ro"]).then_some(bound)
    }

    /// Has the file system (ext4) believe that it found itself damaged: it is read-only from then on, also for what
    /// is open. Returns whether it is.
    pub(crate) fn fail(&self) -> bool {
        let found = Command::new("findmnt").args(["-no", "SOURCE"]).arg(&self.path).output().unwrap();
        let source = String::from_utf8_lossy(&found.stdout).trim().replace("/dev/", "");
        let _ = fs::write(format!("/sys/fs/ext4/{source}/trigger_fs_error"), "1");
        fs::write(self.path.join("probe"), "x").is_err()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = succeeds(Command::new("umount").arg(&self.path));
        // A program that is about to end may still hold it.
        if !unmounted {
            succeeds(Command::new("umount").arg("--lazy").arg(&self.path));
        }
    }
}

/// Copies a file in one atomic step, by sharing its blocks.
///
/// # Panics
/// If the file system can't.
pub(crate) fn clone(source: &Path, target: &Path) {
    let cloned = Command::new("cp").arg("--reflink=always").arg(source).arg(target).output().unwrap();
    assert!(cloned.status.success(), "{}", String::from_utf8_lossy(&cloned.stderr));
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
