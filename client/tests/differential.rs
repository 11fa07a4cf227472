//! Random programs, command lines and edits: through the wrapper and without, and nothing may differ.
//!
//! `tests/differential 10000` runs many; here are as many as take some seconds. A difference names its seed, and
//! `CASTWORK_TESTS_SEED` runs that one alone.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use support::msvc::{ClangCl, take_time};
use support::{Project, shown, text};

/// Compiles of each project, with an edit before each but the first.
const STEPS: u64 = 8;

/// Names that headers have, so that they shadow each other.
const HEADERS: [&str; 5] = ["a.h", "b.h", "c.h", "sub/a.h", "sub/d.h"];

/// Folders that headers are in, and that are searched or not.
const FOLDERS: [&str; 5] = ["src", "one", "two", "three", "gen"];

/// Numbers that look random and are the same for each seed (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }
}

/// A line or some that stand in a source or header.
fn line(dice: &mut Dice, root: &str) -> String {
    let header = dice.pick(&HEADERS);
    let number = dice.roll(1000);
    match dice.roll(16) {
        0..=3 => format!("#include \"{header}\"\n"),
        4 | 5 => format!("#include <{header}>\n"),
        6 => {
            format!("#if defined(__has_include) && __has_include(\"{header}\")\nint has_{number};\n#endif\n")
        }
        7 => format!("#if __has_include(<{header}>)\n#include <{header}>\n#endif\n"),
        8 => format!("#ifdef NEXT\n#include_next <{header}>\n#endif\n"),
        9 => format!("#warning number {number}\n"),
        10 => format!("static const char *file_{number}(void) {{ return __FILE__; }}\n"),
        11 => format!("#define X_{number} {header:?}\n#include X_{number}\n"),
        12 => "#include <stddef.h>\n".to_owned(),
        13 if dice.once_in(4) => format!("static const char *root_{number} = \"{root}/x\";\n"),
        14 if dice.once_in(6) => "asm(\".section .rodata\\n.incbin \\\"data\\\"\\n.text\");\n".to_owned(),
        15 if dice.once_in(6) => format!("static const char *date_{number} = __DATE__;\n"),
        _ => format!("static inline int f_{number}(int x) {{ return x * {number}; }}\n"),
    }
}

/// A header, or the source: guarded, or read once by a pragma, so that circles end.
fn file(dice: &mut Dice, root: &str, name: &str) -> String {
    let guard: String =
        name.chars().map(|letter| if letter.is_alphanumeric() { letter } else { '_' }).collect();
    let mut text = match dice.roll(4) {
        0 => "#pragma once\n".to_owned(),
        _ => format!("#ifndef G_{guard}\n#define G_{guard}\n"),
    };
    let is_guarded = text.starts_with("#ifndef");
    for _ in 0..dice.roll(5) {
        text += &line(dice, root);
    }
    writeln!(text, "extern int v_{guard}_{};", dice.roll(100)).unwrap();
    if is_guarded {
        text += "#endif\n";
    }
    text
}

/// The flags of a command line.
fn flags(dice: &mut Dice, root: &str) -> String {
    let mut flags = String::new();
    for _ in 0..=dice.roll(4) {
        let folder = dice.pick(&FOLDERS);
        let flag = match dice.roll(12) {
            0..=4 => format!("-I{folder}"),
            5 => format!("-I{root}/{folder}"),
            6 => format!("-isystem {folder}"),
            7 => format!("-iquote {folder}"),
            8 => format!("-idirafter {folder}"),
            9 => format!("-I{folder}/../{}", dice.pick(&FOLDERS)),
            10 => "-I.".to_owned(),
            _ => format!("-DD_{}=1", dice.roll(4)),
        };
        flags += " ";
        flags += &flag;
    }
    for flag in ["-DNEXT", "-g", "-O2", "-Wall", "-Wp,-DW", "-fPIC", "-MD -MF dep", "-MMD -MP -MF dep"] {
        if dice.once_in(5) && !(flag.starts_with("-M") && flags.contains("-M")) {
            flags += " ";
            flags += flag;
        }
    }
    flags
}

/// Changes something about the project that compilers may care about.
fn edit(dice: &mut Dice, project: &Project, root: &str) -> String {
    let name = format!("{}/{}", dice.pick(&FOLDERS), dice.pick(&HEADERS));
    let path = project.root.join(&name);
    match dice.roll(10) {
        0..=3 => {
            let text = file(dice, root, &name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let _ = std::fs::remove_file(&path);
            // With a pause, or without.
            if dice.once_in(2) {
                project.write(&name, &text);
            } else {
                std::fs::write(&path, text).unwrap();
            }
            format!("write {name}")
        }
        4 => {
            let _ = std::fs::remove_file(&path);
            format!("remove {name}")
        }
        5 => {
            let other = project.root.join(dice.pick(&FOLDERS)).join(dice.pick(&HEADERS));
            let _ = std::fs::create_dir_all(path.parent().unwrap());
            let _ = std::fs::rename(&other, &path);
            format!("move {} to {name}", other.display())
        }
        6 => {
            let (one, two) = (dice.pick(&FOLDERS[1..]), dice.pick(&FOLDERS[1..]));
            let aside = project.root.join("aside");
            let _ = std::fs::rename(project.root.join(one), &aside);
            let _ = std::fs::rename(project.root.join(two), project.root.join(one));
            let _ = std::fs::rename(&aside, project.root.join(two));
            format!("swap {one} and {two}")
        }
        7 => {
            let _ = std::fs::create_dir_all(path.parent().unwrap());
            let _ = std::fs::remove_file(&path);
            let target = format!("{root}/{}/{}", dice.pick(&FOLDERS), dice.pick(&HEADERS));
            let _ = symlink(&target, &path);
            format!("link {name} to {target}")
        }
        8 => {
            // The same size and time, another content.
            if let (Ok(text), Ok(metadata)) = (std::fs::read_to_string(&path), path.metadata()) {
                std::fs::write(&path, text.replace('1', "7").replace('2', "8")).unwrap();
                let file = std::fs::File::options().write(true).open(&path).unwrap();
                file.set_modified(metadata.modified().unwrap()).unwrap();
            }
            format!("edit {name} and set its time back")
        }
        _ => {
            project.write("data", &format!("data {}", dice.roll(3)));
            "another data".to_owned()
        }
    }
}

/// What of an object has to be the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Same {
    All,
    /// All but the time that Microsoft's objects hold.
    AllButTime,
    /// The code that is made of it when it is linked.
    Code,
}

/// The code that is made of an object for link-time optimisation.
fn linked(project: &Project) -> Option<Vec<u8>> {
    let line = "gcc -w -flto -r -nostdlib -flinker-output=nolto-rel out.o -o linked.o";
    let ran = project.plain(line);
    assert!(ran.status.success(), "{line}: {}", text(&ran.stderr));
    std::fs::read(project.root.join("linked.o")).ok()
}

/// Compiles without the wrapper, and with it twice.
fn compare(project: &Project, line: &str, same: Same) -> Result<(), String> {
    let outcome = |is_cached: bool| {
        for name in ["out.o", "dep"] {
            let _ = std::fs::remove_file(project.root.join(name));
        }
        let line = format!("{line} -o out.o");
        let ran = if is_cached { project.cached(&line) } else { project.plain(&line) };
        let file = |name: &str| std::fs::read(project.root.join(name)).ok();
        let object = file("out.o").and_then(|mut object| match same {
            Same::All => Some(object),
            Same::AllButTime => {
                take_time(&mut object);
                Some(object)
            }
            Same::Code => linked(project),
        });
        (ran.status.code(), text(&ran.stdout), text(&ran.stderr), file("dep"), object)
    };
    let plain = outcome(false);
    for time in ["first", "second"] {
        let cached = outcome(true);
        if cached != plain {
            let what = [
                ("code", cached.0 != plain.0),
                ("stdout", cached.1 != plain.1),
                ("stderr", cached.2 != plain.2),
                ("dependency file", cached.3 != plain.3),
                ("object", cached.4 != plain.4),
            ];
            let what: Vec<_> = what.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
            return Err(format!("{what:?} the {time} time; plain says {}, we {}", plain.2, cached.2));
        }
    }
    Ok(())
}

/// The same flags as clang-cl has them, as far as it does.
fn to_msvc(flags: &str) -> String {
    let mut words = Vec::new();
    let mut rest = flags.split_whitespace();
    while let Some(word) = rest.next() {
        words.push(match word {
            "-isystem" => format!("/external:I {}", rest.next().unwrap()),
            "-iquote" | "-idirafter" => format!("/clang:-isystem{}", rest.next().unwrap()),
            "-g" => "/Z7".to_owned(),
            "-Wall" => "/W4 /showIncludes".to_owned(),
            "-MD" | "-MMD" => "/showIncludes".to_owned(),
            "-DNEXT" | "-O2" => word.replace('-', "/"),
            "-MF" => {
                rest.next();
                continue;
            }
            word if word.starts_with("-I") || word.starts_with("-DD") => word.to_owned(),
            _ => continue,
        });
    }
    format!(" /nologo {}", words.join(" "))
}

/// What is compiled by what.
#[derive(Clone, Copy)]
enum Kind<'a> {
    /// By gcc or clang.
    Plain,
    /// By clang-cl.
    Msvc(&'a ClangCl),
    /// By gcc, for link-time optimisation, in a folder that is called otherwise each time.
    LinkTime,
}

/// What folders are called in turn.
const NAMES: [&str; 3] = ["project", "a-checkout-elsewhere", "b"];

/// Calls the project's folder otherwise; returns its name, for the command line.
fn moved(project: &mut Project, step: u64) -> String {
    let root = project.root.with_file_name(NAMES[usize::try_from(step).unwrap() % NAMES.len()]);
    std::fs::rename(&project.root, &root).unwrap();
    project.root = root;
    shown(&project.root)
}

/// Writes the source, and headers where dice say so.
fn fill(dice: &mut Dice, project: &Project, source: &str) {
    let root = shown(&project.root);
    for folder in FOLDERS {
        for header in HEADERS {
            if dice.once_in(2) {
                let name = format!("{folder}/{header}");
                let text = file(dice, &root, &name);
                std::fs::create_dir_all(project.root.join(&name).parent().unwrap()).unwrap();
                std::fs::write(project.root.join(&name), text).unwrap();
            }
        }
    }
    project.write(source, &file(dice, &root, source));
    project.write("data", "data");
}

/// Runs one project through its edits. Returns how many compiles were understood, and how many of them were recognised
/// without preprocessing; of what is for link-time optimisation, how many were hits right after the folder was moved.
fn run(seed: u64, kind: Kind<'_>) -> [u64; 2] {
    let mut dice = Dice(seed);
    let mut project = Project::new();
    let root = shown(&project.root);
    let (compiler, source) = match dice.roll(4) {
        0 => ("g++", "src/m.cc"),
        1 if support::program("clang").is_some() && !matches!(kind, Kind::LinkTime) => ("clang", "src/m.c"),
        _ => ("gcc", "src/m.c"),
    };
    let (compiler, same) = match kind {
        Kind::Plain => (compiler, Same::All),
        Kind::Msvc(clang_cl) => (clang_cl.path(), Same::AllButTime),
        Kind::LinkTime => (compiler, Same::Code),
    };
    let flags = |dice: &mut Dice| {
        let flags = flags(dice, &root);
        match kind {
            Kind::Plain => flags,
            Kind::Msvc(_) => to_msvc(&flags),
            Kind::LinkTime => {
                format!("{flags} -flto {}", dice.pick(&["", "-ffat-lto-objects", "-fno-fat-lto-objects"]))
            }
        }
    };
    if matches!(kind, Kind::LinkTime) {
        project.set("CASTWORK_SHARE_LTO", "yes");
    }
    fill(&mut dice, &project, source);
    let mut line = format!("{compiler}{} -c {source}", flags(&mut dice));
    let mut story = vec![line.clone()];
    let mut hits = 0;
    for step in 0..STEPS {
        if step > 0 {
            if dice.once_in(6) {
                line = format!("{compiler}{} -c {source}", flags(&mut dice));
                story.push(line.clone());
            } else {
                story.push(edit(&mut dice, &project, &root));
            }
        }
        let compared = compare(&project, &line.replace(&root, &shown(&project.root)), same);
        let compared = compared.and_then(|()| {
            if !matches!(kind, Kind::LinkTime) {
                return Ok(());
            }
            let here = moved(&mut project, step + 1);
            story.push(format!("move to {here}"));
            let _ = project.counters();
            compare(&project, &line.replace(&root, &here), same)?;
            hits += u64::from(project.counters().number("local_hits") == 2);
            Ok(())
        });
        if let Err(difference) = compared {
            panic!("seed {seed}, step {step}: {difference}\n{}\n{}", story.join("\n"), kept(&project.root));
        }
    }
    if matches!(kind, Kind::LinkTime) {
        return [2 * STEPS, hits];
    }
    let counters = project.counters();
    let compiles = counters.number("compiles");
    [compiles, compiles - counters.number("preprocessed")]
}

/// The files of a project, for who looks at a difference.
fn kept(root: &Path) -> String {
    let listed = std::process::Command::new("grep").args(["-rn", ""]).arg(root).output();
    listed.map(|output| text(&output.stdout)).unwrap_or_default()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Runs as many projects as are asked for. Returns how many cases that were, and the counts of [`run`].
fn run_all(cases: u64, kind: Kind<'_>) -> (u64, [u64; 2]) {
    if let Some(seed) = number("CASTWORK_TESTS_SEED") {
        return (0, run(seed, kind));
    }
    let cases = number("CASTWORK_TESTS_CASES").unwrap_or(cases);
    let first = number("CASTWORK_TESTS_FIRST").unwrap_or(0);
    let next = AtomicU64::new(first);
    let counts = [const { AtomicU64::new(0) }; 2];
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= first + cases.div_ceil(STEPS) {
                        return;
                    }
                    for (sum, count) in counts.iter().zip(run(seed, kind)) {
                        sum.fetch_add(count, Relaxed);
                    }
                }
            });
        }
    });
    let [compiles, recognised] = counts.map(AtomicU64::into_inner);
    eprintln!("{cases} cases, two calls each: {compiles} understood, {recognised} of them recognised");
    (cases, [compiles, recognised])
}

#[test]
fn nothing_differs_whatever_is_edited() {
    let (cases, [_, recognised]) = run_all(304, Kind::Plain);
    assert!(recognised >= cases / 8, "so little was recognised that this tests little");
}

#[test]
fn nothing_differs_with_clang_cl() {
    let Some(clang_cl) = ClangCl::find("nothing_differs_with_clang_cl") else { return };
    let (cases, [_, recognised]) = run_all(104, Kind::Msvc(&clang_cl));
    assert!(recognised >= cases / 8, "so little was recognised that this tests little");
}

#[test]
fn nothing_that_is_linked_differs_when_projects_move() {
    let (cases, [_, hits]) = run_all(104, Kind::LinkTime);
    assert!(hits >= cases / 8, "so little was shared that this tests little");
}
