//! What changes the key, and what must not: the table of flags, row by row.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use castwork::config::Config;
use castwork::prepare::Prepared;
use support::{Project, program};

/// Working folder and environment belong to the whole process.
static PROCESS: Mutex<()> = Mutex::new(());

fn key(project: &Project, line: &str) -> Result<String, String> {
    let _alone = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    std::env::set_current_dir(&project.root).unwrap();
    let variables = BTreeMap::from([
        ("CASTWORK_DIR", project.cache.to_str().unwrap().to_owned()),
        ("CASTWORK_PROJECT_ROOT", project.root.to_str().unwrap().to_owned()),
    ]);
    let config = Config::load(&BTreeMap::new(), |name| variables.get(name).cloned()).unwrap();
    let mut words = line.split_whitespace();
    let compiler = program(words.next().unwrap()).unwrap();
    let words: Vec<_> = words.map(Into::into).collect();
    let prepared = Prepared::new(&config, &compiler, &words).map_err(|reason| reason.to_string())?;
    Ok(prepared.action.digest.to_string())
}

fn project() -> Project {
    Project::with(&[
        ("a.c", "#include <stddef.h>\n#include \"h.h\"\nint f(void) { return H; }\n"),
        ("i/h.h", "#define H 1\n"),
        ("j/h.h", "#define H 2\n"),
        ("first.h", "#define FIRST 1\n"),
    ])
}

/// Each pair differs in one thing that changes, or may change, the object.
const CHANGES: &[(&str, &str)] = &[
    ("", "-O2"),
    ("-O1", "-O2"),
    ("-DX", ""),
    ("-DX=1", "-DX=2"),
    ("-DX -UX", "-UX -DX"),
    ("-undef", ""),
    ("-trigraphs", ""),
    ("-std=c99", "-std=gnu99"),
    ("-ansi", ""),
    ("-pedantic", ""),
    ("-pedantic-errors", ""),
    ("-w", ""),
    ("-Wall", "-Wextra"),
    ("-Werror", ""),
    ("-fPIC", "-fPIE"),
    ("-fno-strict-aliasing", ""),
    ("-fvisibility=hidden", ""),
    ("-fcommon", ""),
    ("-frandom-seed=1", "-frandom-seed=2"),
    ("-m32", ""),
    ("-march=x86-64-v2", "-march=x86-64-v3"),
    ("-mavx", ""),
    ("-mtune=generic", "-mtune=core2"),
    ("--param max-inline-insns-single=1", "--param max-inline-insns-single=2"),
    ("--param=max-inline-insns-single=1", ""),
    ("-g", ""),
    ("-g1", "-g3"),
    ("-gdwarf-4", "-gdwarf-5"),
    ("-gz", "-g"),
    ("-pthread", ""),
    ("-p", ""),
    ("-pg", ""),
    ("-pipe", ""),
    ("-x c", "-x c++"),
    ("-nostdinc++", ""),
    ("-static", ""),
    ("-shared", ""),
    ("-pie", "-no-pie"),
    ("-static-pie", ""),
    ("-nostdlib", ""),
    ("-nodefaultlibs", ""),
    ("-nostartfiles", ""),
    ("-static-libgcc", "-shared-libgcc"),
    ("-rdynamic", ""),
    ("-s", ""),
    ("-include first.h", ""),
    ("-imacros first.h", "-include first.h"),
    ("-Ij", ""),
    ("-isystem j", ""),
    ("-iquote j", ""),
    ("-idirafter j", ""),
    ("-Wa,--noexecstack", ""),
    ("-Wp,-DX=1", "-Wp,-DX=2"),
    ("-fdiagnostics-color=always", "-fdiagnostics-color=never"),
    ("-fdiagnostics-color", "-fno-diagnostics-color"),
    ("-fmacro-prefix-map=a=b", "-fmacro-prefix-map=a=c"),
    ("-fdebug-prefix-map=a=b", "-ffile-prefix-map=a=b"),
    ("-flto", ""),
    ("-fsanitize=undefined", ""),
    ("-fsanitize=address", "-fsanitize=undefined"),
    ("-fsanitize=undefined -fsanitize-recover=undefined", "-fsanitize=undefined"),
];

#[test]
fn every_flag_that_changes_the_object_changes_the_key() {
    let project = project();
    let mut known = BTreeMap::new();
    let mut key_of = |flags: &str| {
        let line = format!("gcc {flags} -Ii -c a.c");
        let key = known.entry(flags.to_owned()).or_insert_with(|| key(&project, &line));
        key.clone()
    };
    for (one, other) in CHANGES {
        match (key_of(one), key_of(other)) {
            (Ok(a), Ok(b)) => assert_ne!(a, b, "`{one}` and `{other}` have one key"),
            // What can't be preprocessed here (-m32 without its headers) never gets a key.
            (Err(reason), _) | (_, Err(reason)) => {
                assert_eq!(reason, "preprocessing failed", "`{one}` or `{other}`");
            }
        }
    }
}

/// Each pair means the same, spelled or placed differently.
const SAME: &[(&str, &str)] = &[
    ("-DX=1 -Ii", "-D X=1 -I i"),
    ("-Ii -o a.o", "-Ii -o other.o"),
    ("-Ii -MD", "-Ii"),
    ("-Ii -MD -MF x.d -MT y -MP", "-Ii -MMD"),
    ("-Ii -MD -MQ y", "-Ii"),
    ("-Ii -L/usr/lib -lm -Wl,-z,now", "-Ii"),
    ("-Ii -fuse-ld=gold", "-Ii"),
    ("-Ii -x none", "-Ii"),
    ("-Ii -fdiagnostics-color=auto", "-Ii"),
    ("-Ii -fdiagnostics-color=never", "-Ii -fno-diagnostics-color"),
];

#[test]
fn what_does_not_change_the_object_does_not_change_the_key() {
    let project = project();
    for (one, other) in SAME {
        let key = |flags: &str| key(&project, &format!("gcc {flags} -c a.c")).unwrap();
        assert_eq!(key(one), key(other), "`{one}` and `{other}`");
    }
    std::fs::write(project.root.join("words"), "-Ii -O2").unwrap();
    assert_eq!(key(&project, "gcc @words -c a.c"), key(&project, "gcc -Ii -O2 -c a.c"));
    // One compiler under three names.
    let names: Vec<_> = ["gcc", "cc", "gcc-12"].into_iter().filter(|name| program(name).is_some()).collect();
    let real = |name: &str| program(name).unwrap().canonicalize().unwrap();
    for name in names.into_iter().filter(|name| real(name) == real("gcc")) {
        assert_eq!(key(&project, &format!("{name} -Ii -c a.c")), key(&project, "gcc -Ii -c a.c"), "{name}");
    }
}

#[test]
fn the_key_does_not_change_when_the_checkout_moves() {
    let here = project();
    let there = here.copy("elsewhere");
    let both = |line: &str| {
        let at =
            |project: &Project| key(project, &line.replace("ROOT", project.root.to_str().unwrap())).unwrap();
        (at(&here), at(&there))
    };
    for line in [
        "gcc -O2 -Ii -c a.c",
        "gcc -O2 -IROOT/i -c ROOT/a.c",
        "gcc -O2 -Wall -isystem ROOT/i -c a.c",
        "gcc -g -ffile-prefix-map=ROOT=. -Ii -c a.c",
        // Debug information that moves is kept without the folder's name.
        "gcc -g -Ii -c a.c",
    ] {
        let (a, b) = both(line);
        assert_eq!(a, b, "{line}");
    }
    // The object holds the folder: another key for each.
    for line in ["gcc -g3 -Ii -c a.c", "gcc -O2 -DDATA=ROOT -Ii -c a.c", "gcc -flto -Ii -c a.c"] {
        let (a, b) = both(line);
        assert_ne!(a, b, "{line}");
    }
}

#[test]
fn a_file_name_in_the_source_counts_if_it_is_absolute() {
    let here = Project::with(&[("a.c", "const char *f = __FILE__;\n")]);
    let there = here.copy("elsewhere");
    let at = |project: &Project, line: &str| {
        key(project, &line.replace("ROOT", project.root.to_str().unwrap())).unwrap()
    };
    assert_eq!(at(&here, "gcc -c a.c"), at(&there, "gcc -c a.c"));
    assert_ne!(at(&here, "gcc -c ROOT/a.c"), at(&there, "gcc -c ROOT/a.c"));
}

#[test]
fn headers_count_by_content_and_by_which_is_found() {
    let project = project();
    let line = "gcc -Ii -Ij -c a.c";
    let before = key(&project, line).unwrap();
    project.write("unrelated.h", "#define H 5\n");
    assert_eq!(key(&project, line).unwrap(), before);
    project.write("i/h.h", "#define H 1 /* the same */\n");
    assert_ne!(key(&project, line).unwrap(), before);
    project.write("i/h.h", "#define H 1\n");
    assert_eq!(key(&project, line).unwrap(), before, "times don't count");
    project.write("h.h", "#define H 1\n");
    assert_ne!(key(&project, line).unwrap(), before, "a header that shadows another, even an equal one");
}

#[test]
fn variables_count_exactly_if_the_compiler_reads_them() {
    let mut project = project();
    project.write("dated.c", "const char *d = __DATE__;\n");
    let stored = |project: &Project, line: &str| {
        project.cached(line);
        project.counters().local()
    };
    project.set("UNRELATED", "1");
    project.set("TMPDIR", project.root.to_str().unwrap().to_owned().as_str());
    assert_eq!(stored(&project, "gcc -Ii -c a.c"), [1, 0, 1, 0]);
    project.set("UNRELATED", "2");
    project.set("SOURCE_DATE_EPOCH", "86400");
    project.set("TMPDIR", "/tmp");
    assert_eq!(stored(&project, "gcc -Ii -c a.c"), [1, 1, 0, 0]);
    assert_eq!(stored(&project, "gcc -c dated.c"), [1, 0, 1, 0]);
    assert_eq!(stored(&project, "gcc -c dated.c"), [1, 1, 0, 0]);
    project.set("SOURCE_DATE_EPOCH", "8640000");
    assert_eq!(stored(&project, "gcc -c dated.c"), [1, 0, 1, 0], "another date, another object");
}

#[test]
fn every_variable_of_the_table_does_what_it_says() {
    use castwork::environment::{Reading, VARIABLES};
    let project = project();
    let stored = |project: &Project, line: &str| {
        project.cached(line);
        project.counters().local()
    };
    assert_eq!(stored(&project, "gcc -Ii -c a.c"), [1, 0, 1, 0]);
    assert_eq!(stored(&project, "gcc -fdiagnostics-color=always -Ii -c a.c"), [1, 0, 1, 0]);
    for (name, reading) in VARIABLES {
        let mut with = project.copy("with");
        with.set(name, "1000");
        let plain = stored(&with, "gcc -Ii -c a.c");
        let colored = stored(&with, "gcc -fdiagnostics-color=always -Ii -c a.c");
        match reading {
            Reading::Refused => assert_eq!((plain, colored), ([0, 0, 0, 1], [0, 0, 0, 1]), "{name}"),
            Reading::Key => assert_eq!((plain, colored), ([1, 0, 1, 0], [1, 0, 1, 0]), "{name}"),
            Reading::KeyIfColored => assert_eq!((plain, colored), ([1, 1, 0, 0], [1, 0, 1, 0]), "{name}"),
            Reading::KeyIfDated => assert_eq!((plain, colored), ([1, 1, 0, 0], [1, 1, 0, 0]), "{name}"),
        }
    }
}

#[test]
fn every_row_is_tested_here_unless_it_is_refused() {
    use castwork::command_line::flags::{FLAGS, Meaning};
    // Not for gcc on this machine, or only of another row's kind.
    const ELSEWHERE: [&str; 17] = [
        "-funique-internal-linkage-names",
        "-arch",
        "-fcolor-diagnostics",
        "-fno-color-diagnostics",
        "-stdlib=",
        "--target=",
        "-target",
        "-nostdlib++",
        "-static-libstdc++",
        "-nostdinc",
        "-fno-profile",
        "-fno-module",
        "-integrated-as",
        "-gno-split-dwarf",
        "-fsanitize-undefined-trap-on-error",
        "-fsanitize-address-use-after-scope",
        "-fdiagnostics-format=text",
    ];
    // What is refused: `command_line::tests`.
    let words = |pairs: &'static [(&str, &str)]| -> Vec<&str> {
        pairs.iter().flat_map(|(a, b)| [*a, *b]).flat_map(str::split_whitespace).collect()
    };
    let (changing, same) = (words(CHANGES), words(SAME));
    for flag in FLAGS {
        let tested = match flag.meaning {
            Meaning::Refuse(_) | Meaning::Compile => continue,
            Meaning::LinkOnly | Meaning::Output | Meaning::Dependency(_) | Meaning::Color(None) => &same,
            _ => &changing,
        };
        let is_charset = flag.spelling.contains("charset");
        if !is_charset && !ELSEWHERE.contains(&flag.spelling) {
            assert!(
                tested.iter().any(|word| word.starts_with(flag.spelling)),
                "no test for `{}`",
                flag.spelling
            );
        }
    }
}
