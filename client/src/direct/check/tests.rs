use super::*;
use std::os::unix::fs::symlink;

/// A project in a folder of its own.
struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        project.write("src/a.c", "a");
        project.write("i/h.h", "h");
        project
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    /// Writes a file that is old: what the memory is told of it is believed.
    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn place(&self) -> Place {
        let root = self.path("").to_str().unwrap().trim_end_matches('/').to_owned();
        Place::new(root.clone(), Some(root)).unwrap()
    }

    fn hashes(&self) -> Hashes {
        Hashes::new(&self.path("memo"))
    }

    /// What is seen of both files now.
    fn entry(&self, absent: &[&str]) -> Entry {
        let mut contents = Contents::default();
        let mut marks = Vec::new();
        let files = ["p/i/h.h", "p/src/a.c"].map(str::to_owned).to_vec();
        for name in ["i/h.h", "src/a.c"] {
            let hash = hash_of(&std::fs::read(self.path(name)).unwrap());
            contents.add(&hash);
            marks.extend_from_slice(&hash[..MARK_BYTES]);
        }
        let absent = absent.iter().map(|path| path.rsplit_once('/').unwrap());
        Entry {
            files,
            marks,
            contents: contents.finish().to_vec(),
            absent: absent
                .map(|(folder, name)| Absent { folder: folder.to_owned(), names: vec![name.to_owned()] })
                .collect(),
            ..Entry::default()
        }
    }

    fn check(&self, entry: &Entry) -> Result<(), Misfit> {
        // Twice, so that what is remembered is used.
        let first = entry.check(&self.place(), None, &mut self.hashes());
        assert_eq!(entry.check(&self.place(), None, &mut self.hashes()), first);
        first
    }
}

#[test]
fn what_is_as_it_was_fits_and_a_changed_file_is_named() {
    let project = Project::new();
    let entry = project.entry(&[]);
    assert_eq!(project.check(&entry), Ok(()));
    project.write("i/h.h", "H");
    assert_eq!(project.check(&entry), Err(Misfit::Changed("p/i/h.h".to_owned())));
    std::fs::remove_file(project.path("i/h.h")).unwrap();
    assert_eq!(project.check(&entry), Err(Misfit::Changed("p/i/h.h".to_owned())));
}

#[test]
fn marks_alone_decide_nothing() {
    let project = Project::new();
    let mut entry = project.entry(&[]);
    entry.contents[0] ^= 1;
    assert_eq!(project.check(&entry), Err(Misfit::Changed(String::new())));
}

#[test]
fn a_file_that_appears_is_seen_in_a_folder_that_is_there_and_in_one_that_is_not() {
    for absent in ["p/i/x.h", "p/none/x.h", "p/none/deep/er/x.h", "p/i/../x.h", "p/none/../x.h"] {
        let project = Project::new();
        let entry = project.entry(&[absent]);
        assert_eq!(project.check(&entry), Ok(()), "{absent}");
        std::fs::create_dir_all(project.path("none")).unwrap();
        project.write(absent.strip_prefix("p/").unwrap(), "");
        assert_eq!(project.check(&entry), Err(Misfit::Appeared(absent.to_owned())));
    }
}

#[test]
fn a_folder_of_that_name_is_no_file() {
    let project = Project::new();
    let entry = project.entry(&["p/i/x.h"]);
    std::fs::create_dir(project.path("i/x.h")).unwrap();
    assert_eq!(project.check(&entry), Ok(()));
    std::fs::remove_dir(project.path("i/x.h")).unwrap();
    project.write("i/x.h", "");
    assert!(project.check(&entry).is_err());
}

#[test]
fn a_link_that_leads_nowhere_is_looked_at_each_time() {
    for (link, target, absent) in [("i/x.h", "../later/x.h", "p/i/x.h"), ("i/sub", "../later", "p/i/sub/x.h")]
    {
        let project = Project::new();
        symlink(target, project.path(link)).unwrap();
        let entry = project.entry(&[absent]);
        assert_eq!(project.check(&entry), Ok(()), "{absent}");
        project.write("later/x.h", "");
        assert_eq!(project.check(&entry), Err(Misfit::Appeared(absent.to_owned())));
    }
}

/// Waits until what was written here counts as settled, then remembers that `entry` fits.
fn settle(project: &Project, entry: &Entry) {
    let hashes = project.hashes();
    let begun = std::time::Instant::now();
    loop {
        entry.check(&project.place(), None, &mut project.hashes()).unwrap();
        let watched = Watched::find(project.path("i").to_str().unwrap(), Look::at).unwrap();
        let key = watched.key(project.path("i").to_str().unwrap(), &["x.h".to_owned()]);
        if hashes.memo().get(&key).is_some() {
            return;
        }
        assert!(begun.elapsed().as_secs() < 60, "nothing settles here");
        std::thread::yield_now();
    }
}

#[test]
fn what_appears_in_a_folder_that_was_remembered_is_seen() {
    type Change = fn(&Project);
    let changes: [Change; 4] = [
        |project| project.write("i/x.h", ""),
        |project| {
            // A hard link: no new inode, no content written.
            std::fs::hard_link(project.path("src/a.c"), project.path("i/x.h")).unwrap();
        },
        |project| std::fs::rename(project.path("src/a.c"), project.path("i/x.h")).unwrap(),
        |project| {
            // The whole folder is replaced by an older one.
            project.write("other/x.h", "");
            std::fs::rename(project.path("i"), project.path("gone")).unwrap();
            std::fs::rename(project.path("other"), project.path("i")).unwrap();
        },
    ];
    let projects: Vec<(Project, Change)> =
        changes.into_iter().map(|change| (Project::new(), change)).collect();
    for (project, change) in projects {
        let entry = Entry { files: Vec::new(), marks: Vec::new(), ..project.entry(&["p/i/x.h"]) };
        let entry = Entry { contents: Contents::default().finish().to_vec(), ..entry };
        settle(&project, &entry);
        change(&project);
        assert_eq!(project.check(&entry), Err(Misfit::Appeared("p/i/x.h".to_owned())));
    }
}

#[test]
fn the_order_of_folders_counts_by_what_they_are() {
    let project = Project::new();
    let folders = ["p/i", "p/none", "p/src"].map(str::to_owned).to_vec();
    let real: Vec<String> =
        ["i", "none", "src"].iter().map(|name| project.path(name).to_str().unwrap().to_owned()).collect();
    let now = identities(real.iter().map(String::as_str), &mut Looks::default());
    assert_eq!(now, [1, 0, 3]);
    let entry = Entry { folders, identities: now, ..project.entry(&[]) };
    assert_eq!(project.check(&entry), Ok(()));
    std::fs::create_dir(project.path("none")).unwrap();
    assert_eq!(project.check(&entry), Err(Misfit::Folder("p/none".to_owned())));
    std::fs::remove_dir(project.path("none")).unwrap();
    std::fs::rename(project.path("src/a.c"), project.path("i/a.c")).unwrap();
    std::fs::remove_dir(project.path("src")).unwrap();
    symlink("i", project.path("src")).unwrap();
    assert_eq!(project.check(&entry), Err(Misfit::Folder("p/src".to_owned())), "one folder under two names");
}

#[test]
fn a_listing_counts_by_its_names() {
    let project = Project::new();
    let listing = |name: &str| Listing {
        folder: format!("p/{name}"),
        names: names_in(project.path(name).to_str().unwrap()),
    };
    let entry = Entry { listings: vec![listing("i"), listing("none")], ..project.entry(&[]) };
    assert_eq!(project.check(&entry), Ok(()));
    project.write("none/x", "");
    assert_eq!(project.check(&entry), Err(Misfit::Folder("p/none".to_owned())));
    std::fs::remove_dir_all(project.path("none")).unwrap();
    project.write("i/new", "");
    assert_eq!(project.check(&entry), Err(Misfit::Folder("p/i".to_owned())));
}

#[test]
fn place_and_date_bind() {
    let project = Project::new();
    let place = project.place();
    let bound = Entry { place: place_hash(&place).to_vec(), ..project.entry(&[]) };
    assert_eq!(bound.check(&place, None, &mut project.hashes()), Ok(()));
    let elsewhere = Place::new(place.folder.clone(), Some("/".to_owned() + "x")).unwrap();
    assert_eq!(bound.check(&elsewhere, None, &mut project.hashes()), Err(Misfit::Place));
    let dated = Entry { date: Some("1".to_owned()), ..project.entry(&[]) };
    assert_eq!(dated.check(&place, Some("1"), &mut project.hashes()), Ok(()));
    assert_eq!(dated.check(&place, Some("2"), &mut project.hashes()), Err(Misfit::Date));
    assert_eq!(dated.check(&place, None, &mut project.hashes()), Err(Misfit::Date));
}
