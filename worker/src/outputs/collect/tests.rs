use std::fs;
use std::path::Path;

use castwork_cas::merkle::{Limits, TreeReader};

use super::*;
use crate::action::Outputs;
use crate::sandbox::{Owner, Root, make_symlink, set_mode};

const FUNCTION: DigestFunction = DigestFunction::Sha256;

struct Case {
    base: tempfile::TempDir,
    local: Local,
    action: CheckedAction,
}

impl Case {
    fn new(paths: &[&str]) -> Self {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("root")).unwrap();
        let local = Local::open(&base.path().join("data"), 1 << 30, Owner::of_this_process()).unwrap();
        let action = CheckedAction {
            input_root: Digest::empty(FUNCTION),
            arguments: vec!["cc".to_owned()],
            environment: Vec::new(),
            working_directory: String::new(),
            outputs: Outputs {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
                ..Outputs::default()
            },
            root: Some(Root::Worker),
            network: false,
            host_files: Vec::new(),
        };
        Self { base, local, action }
    }

    fn root(&self) -> std::path::PathBuf {
        self.base.path().join("root")
    }

    fn collect(&self) -> Result<Collected, Failure> {
        collect(&Folder::open(&self.root()).unwrap(), &["proc"], &self.action, FUNCTION, &self.local)
    }

    fn refusal(&self) -> String {
        match self.collect() {
            Err(Failure::Precondition(text)) => text,
            other => panic!("{other:?}"),
        }
    }
}

fn link(target: &str, path: &Path) {
    make_symlink(target, path).unwrap();
}

#[test]
fn files_directories_and_symlinks_are_listed_by_what_they_are_and_the_missing_left_out() {
    let case = Case::new(&["absent", "absent/deep", "d", "f", "l", "x"]);
    let root = case.root();
    fs::create_dir_all(root.join("d/sub/empty")).unwrap();
    for path in ["f", "x", "d/a", "d/sub/b"] {
        fs::write(root.join(path), path).unwrap();
    }
    set_mode(&root.join("x"), 0o755).unwrap();
    link("f", &root.join("l"));
    link("../../f", &root.join("d/sub/l"));
    let out = case.collect().unwrap();
    let files: Vec<_> = out.files.iter().map(|file| (file.path.as_str(), file.is_executable)).collect();
    assert_eq!(files, [("f", false), ("x", true)]);
    assert_eq!((out.symlinks[0].path.as_str(), out.symlinks[0].target.as_str()), ("l", "f"));
    let [directory] = &out.directories[..] else { panic!("one") };
    assert!(directory.is_topologically_sorted && directory.root_directory_digest.is_none());
    let digest = Digest::from_proto(directory.tree_digest.as_ref().unwrap(), FUNCTION).unwrap();
    let bytes = case.local.blobs().get_bytes(&digest).unwrap().unwrap();
    let tree = TreeReader::from_bytes(&bytes, FUNCTION, &Limits::default()).unwrap();
    let tree = tree.to_flat(&Limits::default()).unwrap();
    let paths: Vec<_> = tree.entries().map(|entry| entry.path).collect();
    assert_eq!(paths, ["a", "sub", "sub/b", "sub/l", "sub/empty"]);
    for digest in tree.file_digests() {
        assert!(out.blobs.contains(&digest));
    }
}

#[test]
fn the_directories_themselves_are_kept_when_asked_for() {
    let mut case = Case::new(&["d"]);
    case.action.outputs.wants_directories = true;
    fs::create_dir_all(case.root().join("d/sub")).unwrap();
    fs::write(case.root().join("d/sub/f"), "x").unwrap();
    let out = case.collect().unwrap();
    let digest = out.directories[0].root_directory_digest.as_ref().unwrap();
    let digest = Digest::from_proto(digest, FUNCTION).unwrap();
    assert!(out.blobs.contains(&digest));
    // Root, `sub`, the file and the tree.
    assert_eq!(out.blobs.len(), 4);
}

#[test]
fn the_whole_working_directory_can_be_an_output() {
    for path in ["", "."] {
        let mut case = Case::new(&[path]);
        case.action.working_directory = "w".to_owned();
        fs::create_dir(case.root().join("w")).unwrap();
        fs::write(case.root().join("w/f"), "x").unwrap();
        let out = case.collect().unwrap();
        assert_eq!((out.directories[0].path.as_str(), out.files.len(), out.blobs.len()), (path, 0, 2));
    }
}

#[test]
fn what_the_sandbox_made_for_itself_is_no_output() {
    for paths in [&[""][..], &["d", "proc", "proc/x"]] {
        let case = Case::new(paths);
        fs::create_dir_all(case.root().join("proc")).unwrap();
        fs::create_dir_all(case.root().join("d/proc")).unwrap();
        let out = case.collect().unwrap();
        let [directory] = &out.directories[..] else { panic!("one, not {:?}", out.directories) };
        let digest = Digest::from_proto(directory.tree_digest.as_ref().unwrap(), FUNCTION).unwrap();
        let bytes = case.local.blobs().get_bytes(&digest).unwrap().unwrap();
        let tree = TreeReader::from_bytes(&bytes, FUNCTION, &Limits::default()).unwrap();
        let tree = tree.to_flat(&Limits::default()).unwrap();
        let names: Vec<_> = tree.entries().map(|entry| entry.path).collect();
        let expected: &[&str] = if paths[0].is_empty() { &["d", "d/proc"] } else { &["proc"] };
        assert_eq!(names, expected);
    }
}

#[test]
#[allow(deprecated, reason = "the older fields are what is tested")]
fn a_client_that_asked_the_old_way_finds_its_symlinks_in_the_old_lists_too() {
    let mut case = Case::new(&["l"]);
    case.action.outputs.older_directories.insert("l".to_owned());
    link("f", &case.root().join("l"));
    let mut result = reapi::ActionResult::default();
    case.collect().unwrap().add_to(&mut result, &case.action);
    assert_eq!(result.output_directory_symlinks, result.output_symlinks);
    assert!(result.output_file_symlinks.is_empty() && result.output_symlinks.len() == 1);
}

#[test]
fn symlinks_that_lead_out_are_refused_wherever_they_are() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "x").unwrap();
    let absolute = outside.path().to_str().unwrap();
    for (output, place, target) in
        [("l", "l", absolute), ("l", "l", "../x"), ("d", "d/l", "../../x"), ("d", "d/l", "/etc/passwd")]
    {
        let case = Case::new(&[output]);
        fs::create_dir(case.root().join("d")).unwrap();
        link(target, &case.root().join(place));
        let text = case.refusal();
        assert!(text.contains("symlink out of the input root") && text.contains(place), "{text}");
    }
    let case = Case::new(&["l/secret"]);
    link(absolute, &case.root().join("l"));
    assert!(case.refusal().contains("behind the symlink `l`"));
}

#[test]
fn a_file_of_a_terabyte_of_nothing_is_refused_before_it_is_read() {
    let case = Case::new(&["big"]);
    fs::File::create(case.root().join("big")).unwrap().set_len(1 << 40).unwrap();
    assert!(case.refusal().contains("`big` is one too many"));
}

#[test]
fn nesting_beyond_the_bound_is_refused() {
    let case = Case::new(&["d"]);
    fs::create_dir_all(case.root().join("d").join("d/".repeat(DEPTH_MAX))).unwrap();
    assert!(case.refusal().contains("folders deep"));
}

#[test]
fn what_a_terminal_would_obey_is_spelled_out_in_a_refusal() {
    let case = Case::new(&["d"]);
    fs::create_dir(case.root().join("d")).unwrap();
    link("/etc", &case.root().join("d/a\u{1b}[2J\nb"));
    assert!(case.refusal().contains("`d/a\\u{1b}[2J\\nb`"), "{}", case.refusal());
}

/// Collects `d` with room for so many bytes of names and of trees.
fn bounded(case: &Case, text_left: u64, tree_left: u64) -> Result<(), Failure> {
    let (function, local, out) = (FUNCTION, &case.local, Collected::default());
    let (own_names, entries_left, bytes_left) = (&[][..], ENTRIES_MAX, BYTES_MAX);
    let mut collector =
        Collector { own_names, function, local, out, entries_left, bytes_left, text_left, tree_left };
    collector.collect(&Folder::open(&case.root()).unwrap(), "d", "d", true)
}

#[test]
fn names_and_links_are_bounded_in_bytes_and_too_many_are_no_fault_of_the_worker() {
    let case = Case::new(&["d"]);
    fs::create_dir(case.root().join("d")).unwrap();
    link(&"./".repeat(100), &case.root().join("d/l"));
    assert!(bounded(&case, 300, 1_000).is_ok());
    for (text, tree) in [(100, 1_000), (300, 300)] {
        let refused = bounded(&case, text, tree);
        assert!(
            matches!(&refused, Err(Failure::Precondition(text)) if text.contains("too many bytes")),
            "{refused:?}"
        );
    }
}
