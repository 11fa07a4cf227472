//! nvcc by its rule, with the nvcc that NVIDIA publishes: what comes from the cache is what nvcc makes here, but for the
//! number of its process, by which it names its temporary files; and whatever that depends on counts.
//!
//! `tests/nvcc` installs it, and runs all of this; without that, it is left out.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::tool::{check, check_change, check_hit};
use support::{Project, castwork, shown, skip, text};

const HEADER: &str = "#define LIMIT 3\n__device__ inline float f(float x) { return x * LIMIT; }\n";

/// With all that gets the name of its folder into an object, even without debug information.
const SOURCE: &str = r#"#include <cstdio>
#include <h.h>
namespace { __device__ int anonymous = 3; }
static __device__ int hidden = 4;
__constant__ int constant = 7;
template <class T> __global__ void scale(T *x, int n) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < n) { x[at] = f(x[at]) + hidden++ + constant + anonymous; printf("%s\n", __FILE__); }
}
void launch(float *x, int n) { scale<<<(n + 255) / 256, 256>>>(x, n); printf("%d\n", LIMIT); }
"#;

/// Where nvcc is; `None` if `tests/nvcc` has not installed it.
fn toolkit(test: &str) -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-env/nvcc");
    if !place.join("requirements.txt").exists() {
        skip(test, "nvcc is not installed (tests/nvcc)");
        return None;
    }
    let python = place.join("lib").read_dir().unwrap().next().unwrap().unwrap().path();
    Some(python.join("site-packages/nvidia/cu13"))
}

/// A project that finds a toolkit's nvcc on its `PATH`, behind a folder of its own.
fn project_with(toolkit: &Path) -> Project {
    let mut project = Project::with(&[
        ("a.cu", SOURCE),
        ("i/h.h", HEADER),
        ("early/.keep", ""),
        ("bin/.keep", ""),
        ("k/.keep", ""),
    ]);
    set_path(&mut project, toolkit);
    project
}

fn set_path(project: &mut Project, toolkit: &Path) {
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{}/bin:{path}", shown(&project.root.join("bin")), shown(toolkit));
    project.set("PATH", &path);
}

fn project(test: &str) -> Option<Project> {
    toolkit(test).map(|toolkit| project_with(&toolkit))
}

/// A header that would be read from the folder of temporary files.
const FROM_TMP: &str = "#include_next <crt/host_runtime.h>\n#ifndef FROM_TMP\n#define FROM_TMP\n__attribute__((used)) static int from_tmp;\n#endif\n";

const LINE: &str = "nvcc -Iearly -Ii -c a.cu -o a.o";

#[test]
fn whatever_it_makes_comes_back_as_it_was() {
    let Some(project) = project("nvcc") else { return };
    let two = "-gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=[compute_90,sm_90]";
    let cmake = "-forward-unknown-to-host-compiler -DX=\"y\" -I{}/i -O3 -DNDEBUG --generate-code=arch=compute_75,code=[compute_75,sm_75] -std=c++17 -MD -MT d/a.cu.o -MF a.d -x cu -rdc=true -c {}/a.cu -o a.o";
    let torch = "--generate-dependencies-with-compile --dependency-output a.d -DTORCH_EXTENSION_NAME=x -D__CUDA_NO_HALF_OPERATORS__ -Ii --expt-relaxed-constexpr -gencode=arch=compute_80,code=compute_80 -gencode=arch=compute_80,code=sm_80 --compiler-options '-fPIC' -std=c++17 -c {}/a.cu -o a.o";
    let kept = ["a.o", "k/a.ptx", "k/a.cudafe1.cpp", "k/a.cpp1.ii", "k/a.module_id", "k/a.fatbin.c"];
    let lines: [(&str, &[&str]); 17] = [
        ("-Ii -c a.cu -o a.o", &["a.o"]),
        ("-Ii -c a.cu", &["a.o"]),
        (cmake, &["a.o", "a.d"]),
        (torch, &["a.o", "a.d"]),
        ("-Ii -MMD -dc a.cu -odir k", &["k/a.o", "a.d", "k/a.d"]),
        ("-Ii -ptx a.cu -o a.ptx", &["a.ptx"]),
        ("-Ii -cubin a.cu", &["a.cubin"]),
        ("-Ii -fatbin a.cu -o a.fatbin", &["a.fatbin"]),
        ("-Ii -G -no-compress -c a.cu -o a.o", &["a.o"]),
        ("-Ii -lineinfo -Xcompiler -O2 -c a.cu -o a.o", &["a.o"]),
        ("-Ii -keep -keep-dir k -c a.cu -o a.o", &kept),
        (&format!("-Ii -t 2 {two} -c a.cu -o a.o"), &["a.o"]),
        ("-Ii -dlto -arch=sm_80 -c a.cu -o a.o", &["a.o"]),
        ("-Ii -optix-ir a.cu -o a.optixir", &["a.optixir"]),
        ("-Ii -v -objtemp -c a.cu -o a.o", &["a.o"]),
        ("-Ii -ccbin clang++ -c a.cu -o a.o", &["a.o"]),
        ("--options-file words -c a.cu -o a.o", &["a.o"]),
    ];
    project.write("words", "-Ii -include early/first.h\n-DX=1\n");
    project.write("early/first.h", "#include <cstddef>\n");
    for (line, outputs) in lines {
        eprintln!("nvcc {line}");
        let left =
            check_hit(&project, "", &format!("nvcc {}", line.replace("{}", &shown(&project.root))), outputs);
        assert!(left.files.values().any(Option::is_some), "{line}: {}", left.stderr);
        let must_speak = line.contains("-v ");
        assert!(!must_speak || left.stderr.len() > 100, "{line} says nothing: {}", left.stderr);
    }
    // A warning of each of those that it starts.
    project.write("w.cu", "__global__ void k() { int unused; }\n#warning said by the preprocessor\n");
    let left = check_hit(&project, "", "nvcc -c w.cu -o w.o", &["w.o"]);
    assert!(left.stderr.contains("said by") && left.stderr.contains("unused"), "{}", left.stderr);
    // What is said of a time is said again.
    let said = || text(&project.cached("nvcc -Ii -Xptxas -v -c a.cu -o a.o").stderr);
    let first = said();
    assert!(first.contains("registers") && first == said(), "{first}");
    // One that fails is run each time.
    project.write("e.cu", "__global__ int k() {}\n");
    for _ in 0..2 {
        assert_ne!(check(&project, "nvcc -c e.cu -o e.o", &["e.o"]).code, Some(0));
    }
}

/// What debug information says, without the places of its texts: gcc puts these in an order that the number of nvcc's process
/// has a part in.
fn debug_information(project: &Project) -> String {
    let dump = Command::new("readelf")
        .args(["-W", "--debug-dump=info", "a.o"])
        .current_dir(&project.root)
        .output()
        .unwrap();
    let dump = text(&dump.stdout);
    let lines = dump
        .lines()
        .map(|line| line.split("(indirect").next().unwrap().to_owned() + line.rsplit("): ").next().unwrap());
    let lines: Vec<String> =
        lines.map(|line| line.split("tmpxft_").map(|part| part.get(8..).unwrap_or(part)).collect()).collect();
    assert!(lines.len() > 1000);
    lines.join("\n")
}

#[test]
fn debug_information_comes_back_as_it_was() {
    let Some(project) = project("nvcc -g") else { return };
    let line = "nvcc -Ii -g -G -c a.cu -o a.o";
    assert!(project.plain(line).status.success());
    let plain = debug_information(&project);
    for _ in 0..2 {
        std::fs::remove_file(project.root.join("a.o")).unwrap();
        assert!(project.cached(line).status.success());
        assert!(debug_information(&project) == plain);
    }
    assert_eq!(project.counters().local(), [2, 1, 1, 0]);
}

#[test]
fn a_hit_starts_no_process_and_replaces_what_is_there() {
    let Some(project) = project("nvcc hit") else { return };
    let made = check_hit(&project, "", LINE, &["a.o"]);
    project.write("a.o", "another");
    let trace = Command::new("strace")
        .args(["-f", "-e", "trace=execve,execveat", "-o"])
        .arg(project.root.join("trace"))
        .arg(castwork())
        .args(LINE.split(' '))
        .current_dir(&project.root)
        .env_clear()
        .envs(project.command("x").get_envs().filter_map(|(name, value)| Some((name, value?))))
        .status()
        .unwrap();
    assert!(trace.success());
    let trace = std::fs::read_to_string(project.root.join("trace")).unwrap();
    assert_eq!(trace.matches("execve").count(), 1, "{trace}");
    let object = std::fs::read(project.root.join("a.o")).unwrap();
    assert_eq!(object.len(), made.files["a.o"].as_ref().unwrap().len());
    assert_eq!(project.counters().local(), [1, 1, 0, 0]);
}

/// A change to a project that has to show in what nvcc makes.
type Change = fn(&mut Project);

#[test]
fn what_it_depends_on_counts() {
    let changes: [(&str, Change); 12] = [
        ("header", |it| it.write("i/h.h", &HEADER.replace('3', "5"))),
        ("header that comes earlier", |it| it.write("early/h.h", &HEADER.replace('3', "6"))),
        ("header of the toolkit that comes earlier", |it| {
            it.write(
                "early/cuda_runtime.h",
                "#pragma GCC system_header\n#include_next <cuda_runtime.h>\n#define hidden toolkit\n",
            );
        }),
        ("host compiler", |it| it.turn("bin/gcc", "/usr/bin/clang++")),
        ("assembler", |it| {
            // Any other: that the program is looked up and started by this name is what counts.
            std::fs::copy("/usr/bin/as", it.root.join("bin/as")).unwrap();
            it.write("tick", "");
            it.set("CPLUS_INCLUDE_PATH", "early");
            it.write("early/stdio.h", "#include_next <stdio.h>\n#define hidden by_stdio\n");
        }),
        ("words before", |it| it.set("NVCC_PREPEND_FLAGS", "-G -no-compress")),
        ("words behind", |it| it.set("NVCC_APPEND_FLAGS", "-O1 -lineinfo -no-compress")),
        ("its compiler", |it| it.set("NVCC_CCBIN", "clang++")),
        ("what its profile adds to", |it| it.set("INCLUDES", "-Dhidden=other ")),
        ("words for a part", |it| it.set("PTXAS_FLAGS", "-O1 ")),
        ("path of headers", |it| {
            it.write("cpath/cstdio", "#include_next <cstdio>\n#define hidden by_cpath\n");
            it.set("CPATH", "cpath");
        }),
        ("folder of temporary files, with a header in it", |it| {
            it.write("tmp/crt/host_runtime.h", FROM_TMP);
            it.set("TMPDIR", &shown(&it.root.join("tmp")));
        }),
    ];
    let Some(toolkit) = toolkit("nvcc changes") else { return };
    for (name, change) in changes {
        eprintln!("{name}");
        let mut project = project_with(&toolkit);
        let before = check_hit(&project, "", LINE, &["a.o"]);
        change(&mut project);
        let after = check(&project, LINE, &["a.o"]);
        assert_eq!(project.counters().number("local_hits"), 0, "{name}");
        assert_eq!(after.code, Some(0), "{name}: {}", after.stderr);
        assert!(before.files != after.files, "{name}: the change doesn't show, so this tests nothing");
    }
    // What appears where there was none, in the folder of temporary files that was there.
    let mut project = project_with(&toolkit);
    project.write("tmp/.keep", "");
    project.set("TMPDIR", &shown(&project.root.join("tmp")));
    check_change(&project, "", LINE, &["a.o"], || {
        project.write("tmp/crt/host_runtime.h", FROM_TMP);
    });
    // Nothing is kept while it is there.
    std::fs::remove_file(project.root.join("tmp/crt/host_runtime.h")).unwrap();
    // Flags.
    let left =
        [LINE.to_owned(), format!("{LINE} -DLIMIT2"), format!("{LINE} -O0"), format!("{LINE} -arch=sm_90")]
            .map(|line| check_hit(&project, "", &line, &["a.o"]));
    assert!(left[0] != left[3]);
}

/// A toolkit of its own, whose programs are those of another.
fn own_toolkit(project: &Project, toolkit: &Path) -> PathBuf {
    let own = project.root.join("toolkit");
    std::fs::create_dir(&own).unwrap();
    let copied = Command::new("cp").arg("-r").arg(toolkit.join("bin")).arg(&own).status().unwrap();
    assert!(copied.success());
    for name in ["nvvm", "include", "lib"] {
        std::os::unix::fs::symlink(toolkit.join(name), own.join(name)).unwrap();
    }
    own
}

#[test]
fn its_profile_and_its_parts_count() {
    let Some(toolkit) = toolkit("nvcc.profile") else { return };
    let mut project = project_with(&toolkit);
    let own = own_toolkit(&project, &toolkit);
    set_path(&mut project, &own);
    let profile = std::fs::read_to_string(own.join("bin/nvcc.profile")).unwrap();
    let with = |more: &str| project.write("toolkit/bin/nvcc.profile", &format!("{profile}\n{more}\n"));
    with("INCLUDES += \"-Ii\" $(_SPACE_)");
    let line = "nvcc -c a.cu -o a.o";
    check_change(&project, "", line, &["a.o"], || with("INCLUDES += \"-Ii\" \"-Dhidden=other\" $(_SPACE_)"));
    // Another program in the place of a part: it is seen, and it is none that is known.
    std::fs::rename(own.join("bin/fatbinary"), own.join("bin/real")).unwrap();
    let script = format!("#!/bin/sh\nexec {}/bin/real \"$@\"\n", shown(&own));
    project.write("toolkit/bin/fatbinary", &script);
    assert!(Command::new("chmod").arg("+x").arg(own.join("bin/fatbinary")).status().unwrap().success());
    check_not_kept(&project, line, "tool that starts a script");
    std::fs::rename(own.join("bin/real"), own.join("bin/fatbinary")).unwrap();
    // Variables that the profile names, and we don't know of.
    for (more, reason) in [
        ("INCLUDES += \"-DX$(MINE)\" $(_SPACE_)", "`nvcc.profile` with `MINE`"),
        ("MINE = x", "`nvcc.profile` with `MINE`"),
        ("INCLUDES += \"-DX$MINE\" $(_SPACE_)", "`nvcc.profile` with `INCLUDES += \"-DX$MINE\" $(_SPACE_)`"),
    ] {
        with(&format!("INCLUDES += \"-Ii\" $(_SPACE_)\n{more}"));
        check_not_kept(&project, line, reason);
    }
}

/// Checks that nothing is kept of a call, for a reason.
fn check_not_kept(project: &Project, line: &str, reason: &str) {
    project.counters();
    for _ in 0..2 {
        // What it links or says may hold the time, or its process: it is the exit code that is compared.
        let (plain, cached) = (project.plain(line), project.cached(line));
        assert_eq!(cached.status.code(), plain.status.code(), "{line}\n{}", text(&cached.stderr));
    }
    let counters = project.counters();
    assert_eq!(counters.number("local_hits"), 0, "{line}: {}", counters.0);
    assert_eq!(counters.reason(reason), 2, "{line}: {}", counters.0);
}

const SHELL: &str = "word in which a shell would replace something";
const NATIVE: &str = "word that asks for what this machine is (`native`)";
const WORDS: &str = "file of words for the compiler";
const DATE: &str = "source that may ask for the date";
const NO_OBJECT: &str = "nvcc without `-c` or the like";

/// Calls of which nothing is kept, and why.
const NOT_KEPT: [(&str, &str); 32] = [
    ("-Ii a.cu -E -o a.ii", NO_OBJECT),
    ("-Ii -M a.cu", NO_OBJECT),
    ("-shared a.o -o a.so", NO_OBJECT),
    ("--version", NO_OBJECT),
    ("-Ii -arch=native -c a.cu -o a.o", NATIVE),
    ("-Ii -arch native -c a.cu -o a.o", NATIVE),
    ("-Ii -Xcompiler=-O2,-march=native -c a.cu -o a.o", NATIVE),
    ("-Ii -DX=$HOME -c a.cu -o a.o", SHELL),
    ("-Ii -DX=`id` -c a.cu -o a.o", SHELL),
    ("--options-file=words -c a.cu -o a.o", SHELL),
    ("-Ii -optf nested -c a.cu -o a.o", "file of words that names another"),
    ("-optf more -c a.cu -o a.o", NATIVE),
    ("-Xcompiler @for-gcc -Ii -c a.cu -o a.o", WORDS),
    ("-Ii -Xcompiler \"@for-gcc\" -c a.cu -o a.o", WORDS),
    ("-Ii -optf quoted -c a.cu -o a.o", "file of words with quotes"),
    ("-Ii -Xcompiler --include,late.h -c a.cu -o a.o", "`--include`"),
    ("-Ii -Xcompiler -specs=late.specs -c a.cu -o a.o", "`-specs`"),
    ("-Ii -Xcompiler -Xassembler,-ag=a.lst -c a.cu -o a.o", "`-ag`"),
    ("-Ii -c a.cu host.ii", "more than one source"),
    ("-Ifirst -Ii -c a.cu -o a.o", "headers in a second folder `crt`"),
    ("-Ii -Xcompiler -include,late.h -c a.cu -o a.o", "`-include`"),
    ("-Ii -Xcompiler -include -Xcompiler late.h -c a.cu -o a.o", "`-include`"),
    ("-Ii -Xcompiler @late -c a.cu -o a.o", WORDS),
    ("-Ii --dryrun -c a.cu -o a.o", "`--dryrun`"),
    ("-Ii -time times -c a.cu -o a.o", "`-time`"),
    ("-Ii -split-compile=0 -c a.cu -o a.o", "`-split-compile=0`"),
    ("-c date.cu -o a.o", DATE),
    ("-c time.cu -o a.o", DATE),
    ("-c paste.cu -o a.o", DATE),
    ("-keep -keep-dir k -c time.cu -o a.o", DATE),
    ("-Ii -c a.cu b.cu", "more than one source"),
    ("-c host.cpp -o a.o", "nvcc that was not seen to preprocess"),
];

#[test]
fn what_is_not_known_is_not_kept() {
    let Some(mut project) = project("nvcc passed through") else { return };
    project.write("date.cu", "const char *date = __DATE__;\n");
    project.write("time.cu", "#include <cstdio>\n__global__ void k() { printf(__TIME__); }\n");
    let paste = "#define P_(a, b) a##b\n#define P(a, b) P_(a, b)\n#define S_(x) #x\n#define S(x) S_(x)\n#define U _\n";
    project.write("paste.cu", &format!("{paste}const char *pasted = S(P(U, P(_TIM, E__)));\n"));
    project.write("late.h", "#ifndef __CUDACC__\nstatic const char *late = __TIME__;\n#endif\n");
    project.write("b.cu", "int b;\n");
    project.write("host.cpp", "int host;\n");
    project.write("words", "-Ii -DX=$HOME\n");
    project.write("more", "-Ii -Xcompiler=-march=native\n");
    project.write("for-gcc", "-O2 -march=native\n");
    project.write("late", "-include late.h\n");
    project.write("nested", "-optf words\n");
    project.write("quoted", "-Xcompiler \"-O2 -include late.h\"\n");
    project.write("late.specs", "*cc1plus:\n+ -include late.h\n\n");
    project.write("host.ii", "const char *host = __TIME__;\n");
    project.write("first/crt/host_runtime.h", "#include_next <crt/host_runtime.h>\n");
    for (line, reason) in NOT_KEPT {
        eprintln!("nvcc {line}");
        check_not_kept(&project, &format!("nvcc {line}"), reason);
    }
    for (name, value, reason) in [
        ("NVCC_APPEND_FLAGS", "-arch=native", NATIVE),
        ("NVCC_PREPEND_FLAGS", "-DX=$HOME", "`NVCC_PREPEND_FLAGS` in which a shell would replace something"),
        ("INCLUDES", "-I$HOME ", "`INCLUDES` in which a shell would replace something"),
        ("INCLUDES", "-include late.h ", "`-include`"),
        ("INCLUDES", "-march=native ", NATIVE),
        ("CCC_OVERRIDE_OPTIONS", "+-DX", "`CCC_OVERRIDE_OPTIONS` is set"),
        ("LD_PRELOAD", "libm.so.6", "`LD_PRELOAD` is set"),
    ] {
        project.set(name, value);
        check_not_kept(&project, LINE, reason);
        project.variables.retain(|(known, _)| known != name);
    }
    // A compiler that is a script may read anything.
    project.write("bin/gcc", "#!/bin/sh\nexec /usr/bin/gcc -DX=$MINE \"$@\"\n");
    assert!(Command::new("chmod").arg("+x").arg(project.root.join("bin/gcc")).status().unwrap().success());
    check_not_kept(&project, LINE, "tool that starts a script");
    std::fs::remove_file(project.root.join("bin/gcc")).unwrap();
    // So may nvcc itself.
    project.write("bin/nvcc", "#!/bin/sh\nPATH=${PATH#*:} exec nvcc -DX=$MINE \"$@\"\n");
    assert!(Command::new("chmod").arg("+x").arg(project.root.join("bin/nvcc")).status().unwrap().success());
    check_not_kept(&project, LINE, "nvcc that is a script");
    let why = text(&project.cached("why --last").stdout);
    assert!(why.contains("nvcc that is a script"), "{why}");
}

#[test]
fn another_folder_is_another_call() {
    let Some(project) = project("nvcc in another folder") else { return };
    let here = check_hit(&project, "", LINE, &["a.o"]);
    let mut other = project.copy("another-tree");
    other.variables.clone_from(&project.variables);
    let there = check(&other, LINE, &["a.o"]);
    assert_eq!(other.counters().local(), [1, 0, 1, 0]);
    assert!(here.files != there.files, "nvcc writes which folder it is in, so this tests something");
}

#[test]
fn cmake_builds_again_from_the_cache() {
    let Some(mut project) = project("nvcc and CMake") else { return };
    let lists = "cmake_minimum_required(VERSION 3.18)\nproject(x LANGUAGES CXX CUDA)\nadd_library(x STATIC a.cu b.cu host.cpp)\ntarget_include_directories(x PRIVATE i)\nset_target_properties(x PROPERTIES CUDA_SEPARABLE_COMPILATION ON CUDA_STANDARD 17)\n";
    project.write("CMakeLists.txt", lists);
    project.write("b.cu", "#include <h.h>\n__global__ void b(float *x) { *x = f(*x); }\n");
    project.write("host.cpp", "int host() { return 1; }\n");
    project.set("CUDAHOSTCXX", "/usr/bin/g++");
    let configure = format!(
        "cmake -G Ninja -S . -B build -DCMAKE_CUDA_ARCHITECTURES=75;80 -DCMAKE_CUDA_COMPILER_LAUNCHER={} -DCMAKE_BUILD_TYPE=RelWithDebInfo",
        castwork()
    );
    let run = |line: &str| {
        let ran = project.plain(line);
        assert!(ran.status.success(), "{line}: {}{}", text(&ran.stdout), text(&ran.stderr));
    };
    run(&configure);
    project.counters();
    run("cmake --build build");
    assert_eq!(project.counters().local(), [2, 0, 2, 0]);
    run("cmake --build build --target clean");
    run("cmake --build build");
    assert_eq!(project.counters().local(), [2, 2, 0, 0]);
    // The depfile came back as well.
    project.write("i/h.h", &HEADER.replace('3', "4"));
    run("cmake --build build");
    assert_eq!(project.counters().local(), [2, 0, 2, 0]);
}

#[test]
fn compilers_that_are_called_through_us_are_themselves_to_nvcc() {
    let Some(project) = project("nvcc below exec") else { return };
    project.write(
        "Makefile",
        &format!("a.o: a.cu\n\t{} {LINE}\nhost.o: host.cpp\n\tg++ -c host.cpp -o host.o\n", castwork()),
    );
    project.write("host.cpp", "int host() { return 1; }\n");
    for expected in [[2, 0, 2, 0], [2, 2, 0, 0], [2, 2, 0, 0]] {
        let made = project.cached("exec -- make -B a.o host.o");
        assert!(made.status.success(), "{}", text(&made.stderr));
        assert_eq!(project.counters().local(), expected);
    }
    // It is the same call as without them.
    check(&project, LINE, &["a.o"]);
    assert_eq!(project.counters().local(), [1, 1, 0, 0]);
}
