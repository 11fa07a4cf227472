//! What changes the key of a compile by clang-cl, and what must not: the table of MSVC's flags, row by row.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use castwork::command_line::msvc::flags::{Attach, FLAGS, Meaning};
use castwork::config::Config;
use castwork::prepare::Prepared;
use support::Project;
use support::msvc::ClangCl;

/// Working folder and environment belong to the whole process.
static PROCESS: Mutex<()> = Mutex::new(());

/// Both keys: that of the action, and that under which a call is recognised.
fn key(clang_cl: &ClangCl, project: &Project, line: &str) -> Result<(String, String), String> {
    let _alone = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    std::env::set_current_dir(&project.root).unwrap();
    let variables = BTreeMap::from([
        ("CASTWORK_DIR", project.cache.to_str().unwrap().to_owned()),
        ("CASTWORK_PROJECT_ROOT", project.root.to_str().unwrap().to_owned()),
    ]);
    let config = Config::load(&BTreeMap::new(), |name| variables.get(name).cloned()).unwrap();
    let words: Vec<_> = line.split_whitespace().map(Into::into).collect();
    let prepared = Prepared::new(&config, Path::new(clang_cl.path()), &words);
    let prepared = prepared.map_err(|reason| reason.to_string())?;
    Ok((prepared.action.digest.to_string(), prepared.key().unwrap().digest.to_string()))
}

fn project() -> Project {
    Project::with(&[
        ("a.c", "#include \"h.h\"\nint f(void) { return H; }\n"),
        ("i/h.h", "#define H 1\n"),
        ("j/h.h", "#define H 2\n"),
        ("first.h", "#define FIRST 1\n"),
        ("root/x", ""),
    ])
}

/// Each pair differs in one thing that changes, or may change, the object or what is said.
const CHANGES: &[(&str, &str)] = &[
    ("", "/O2"),
    ("/O1", "/O2"),
    ("/Ob0", "/Ob1"),
    ("/Ob2", ""),
    ("/Od", "/Ox"),
    ("/Og", ""),
    ("/Oi", "/Oi-"),
    ("/Os", "/Ot"),
    ("/Oy", "/Oy-"),
    ("/DX", ""),
    ("/DX=1", "/DX=2"),
    ("/DX /UX", "/UX /DX"),
    ("/Ij", ""),
    ("/external:Ij", ""),
    ("/imsvcj", ""),
    ("/FIfirst.h", ""),
    ("/X", ""),
    ("/winsysrootroot", ""),
    ("/winsdkdirroot", ""),
    ("/winsdkversion10", ""),
    ("/vctoolsdirroot", ""),
    ("/vctoolsversion14", ""),
    ("/showIncludes", "/showIncludes:user"),
    ("/showIncludes", ""),
    ("/TC", "/TP"),
    ("/Y-", ""),
    ("/source-charset:utf-8", ""),
    ("/execution-charset:utf-8", ""),
    ("/utf-8", ""),
    ("/validate-charset", "/validate-charset-"),
    ("/std:c11", "/std:c17"),
    ("/permissive", "/permissive-"),
    ("/Zc:inline", ""),
    ("/J", ""),
    ("/FC", ""),
    ("/diagnostics:caret", ""),
    ("/errorReport:queue", ""),
    ("/analyze-", ""),
    ("/W0", "/W1"),
    ("/W2", "/W3"),
    ("/W4", "/Wall"),
    ("/WX", "/WX-"),
    ("/w", ""),
    ("/wd4996", "/wd4997"),
    ("/we4289", ""),
    ("/wo4289", ""),
    ("/w14640", "/w24640"),
    ("/w34640", "/w44640"),
    ("/MD", "/MDd"),
    ("/MT", "/MTd"),
    ("/EHsc", "/EHa"),
    ("/GR", "/GR-"),
    ("/GS", "/GS-"),
    ("/Gs4096", ""),
    ("/GF", "/GF-"),
    ("/GX", "/GX-"),
    ("/Gd", "/Gr"),
    ("/Gv", "/Gz"),
    ("/Gw", "/Gw-"),
    ("/Gy", "/Gy-"),
    ("/guard:cf", ""),
    ("/RTC1", ""),
    ("/sdl", "/sdl-"),
    ("/fp:fast", "/fp:precise"),
    ("/arch:AVX", "/arch:AVX2"),
    ("/volatile:iso", "/volatile:ms"),
    ("/vd0", "/vd2"),
    ("/vmb", "/vmg"),
    ("/vmm", "/vms"),
    ("/vmv", ""),
    ("/Zl", ""),
    ("/Zm200", ""),
    ("/Zp1", "/Zp8"),
    ("/bigobj", ""),
    ("/Brepro", "/Brepro-"),
    ("/cgthreads2", ""),
    ("/hotpatch", ""),
    ("/kernel-", ""),
    ("/QIntel-jcc-erratum", ""),
    ("/Z7", ""),
    ("/Zi", ""),
    ("/Z7 /Zo", "/Z7 /Zo-"),
    ("/Z7 /Foone.obj", "/Z7 /Fotwo.obj"),
    ("/clang:-O3", "/O2"),
    ("/clang:-isystemj", ""),
    ("-fno-strict-aliasing", ""),
    ("-m32", ""),
    ("-Wno-unused", ""),
    ("--target=aarch64-pc-windows-msvc", ""),
    ("-gcodeview", "-gline-tables-only"),
    ("-fcolor-diagnostics", ""),
];

#[test]
fn every_flag_that_changes_the_object_changes_the_key() {
    let Some(clang_cl) = ClangCl::find("msvc_key: every_flag_that_changes") else { return };
    let project = project();
    let mut known = BTreeMap::new();
    for (one, other) in CHANGES {
        let mut key_of = |flags: &str| {
            let of = || key(&clang_cl, &project, &format!("{flags} /Ii /c -- a.c"));
            known
                .entry(flags.to_owned())
                .or_insert_with(of)
                .clone()
                .unwrap_or_else(|why| panic!("{flags}: {why}"))
        };
        let (a, b) = (key_of(one), key_of(other));
        assert_ne!(a.0, b.0, "`{one}` and `{other}` have one action");
        assert_ne!(a.1, b.1, "`{one}` and `{other}` are one call");
    }
}

/// Each pair means the same, spelled or placed differently.
const SAME: &[(&str, &str)] = &[
    ("/DX=1 /Ii", "-D X=1 -I i"),
    ("/Ii /Foa.obj", "/Ii -o other.obj"),
    ("/Ii /nologo /FS /Fdx.pdb", "/Ii"),
    ("/Ii /TC", "/Ii"),
    ("/O2 /W3 /Ii", "-O2 -W3 -Ii"),
    ("/Ii -fno-color-diagnostics", "/Ii"),
];

#[test]
fn what_does_not_change_the_object_does_not_change_the_key() {
    let Some(clang_cl) = ClangCl::find("msvc_key: what_does_not_change") else { return };
    let project = project();
    for (one, other) in SAME {
        let key = |flags: &str| key(&clang_cl, &project, &format!("{flags} /c -- a.c")).unwrap();
        assert_eq!(key(one), key(other), "`{one}` and `{other}`");
    }
}

#[test]
fn the_key_does_not_change_when_the_checkout_moves() {
    let Some(clang_cl) = ClangCl::find("msvc_key: when_the_checkout_moves") else { return };
    let here = project();
    let there = here.copy("elsewhere");
    let both = |line: &str| {
        let at = |project: &Project| {
            key(&clang_cl, project, &line.replace("ROOT", project.root.to_str().unwrap())).unwrap()
        };
        (at(&here), at(&there))
    };
    for line in ["/Ii /c -- a.c", "/IROOT/i /FIfirst.h /showIncludes /c -- ROOT/a.c"] {
        let (a, b) = both(line);
        assert_eq!(a, b, "{line}");
    }
    for line in ["/Z7 /Ii /c -- a.c", "/Ii /DDATA=ROOT /c -- a.c", "/imsvcROOT/i /c -- a.c"] {
        let (a, b) = both(line);
        assert_ne!(a.0, b.0, "{line}");
    }
}

#[test]
fn every_row_is_tested_here_unless_it_is_refused() {
    let words = |pairs: &'static [(&str, &str)]| -> Vec<&str> {
        pairs.iter().flat_map(|(a, b)| [*a, *b]).flat_map(str::split_whitespace).collect()
    };
    let (changing, same) = (words(CHANGES), words(SAME));
    for flag in FLAGS {
        let tested = match flag.meaning {
            // `command_line::msvc::tests` has these.
            Meaning::Refuse(_) | Meaning::Compile | Meaning::Source(_) => continue,
            Meaning::Nothing | Meaning::Output => &same,
            _ => &changing,
        };
        let is_it = |word: &&str| {
            let word = word.strip_prefix(['/', '-']).unwrap_or(word);
            if flag.attach == Attach::Exact { word == flag.spelling } else { word.starts_with(flag.spelling) }
        };
        assert!(tested.iter().any(is_it), "no test for `/{}`", flag.spelling);
    }
}
