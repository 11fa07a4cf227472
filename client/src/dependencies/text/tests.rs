use super::*;

const LOOKING: Looking<'static> = Looking {
    language: Language::Cxx,
    has_assembler_blocks: false,
    standard: Some("c++17"),
    places: &["/home/me/x"],
    isolated: None,
    seconds: (1000, 1001),
};

fn reason(text: &str) -> String {
    read(text.as_bytes(), &LOOKING).expect_err(text).to_string()
}

fn found(text: &str) -> Text {
    read(text.as_bytes(), &LOOKING).expect(text)
}

#[test]
fn entered_files_are_told_from_renumbered_lines() {
    let text = "# 0 \"a.cc\"\n# 0 \"<command-line>\"\n# 1 \"/usr/include/stdc-predef.h\" 1 3 4\n\
        # 0 \"<command-line>\" 2\n# 1 \"a.cc\"\n#include \"b.h\"\n# 1 \"./b.h\" 1\n#include <c.h>\n\
        # 1 \"i/c \\303\\244.h\" 1 3\n# 9 \"parser.y\"\nint x;\n# 2 \"./b.h\" 2\n# 2 \"a.cc\" 2\n";
    let found = found(text);
    assert_eq!(
        found.files.into_iter().collect::<Vec<_>>(),
        ["./b.h", "/usr/include/stdc-predef.h", "i/c \u{e4}.h"]
    );
    assert_eq!(found.direct_includes.into_iter().collect::<Vec<_>>(), ["b.h"]);
    assert_eq!(found.predefined.as_deref(), Some("/usr/include/stdc-predef.h"));
}

#[test]
fn an_incbin_is_seen_however_it_is_spelled() {
    for text in [
        r#"asm(".incbin \"x\"");"#,
        r#"__asm__ volatile (".inc" "bin \"x\"");"#,
        r#"asm("." "inc" "bin" " \"x\"");"#,
        r#"asm("\x2eincbin 'x'");"#,
        r#"asm(R"(.incbin "x")");"#,
        r#"__attribute__((section(".x\n.incbin \"f\"\n#"))) int y;"#,
        "asm(\".inc\"\n# 5 \"a.c\"\n\"bin x\");",
        r#"int n = 1'000'000; asm(".incbin");"#,
        r#"asm(".include \"x\"");"#,
        r#"asm(".INCBIN \"x\"");"#,
        r#"asm(".Inc" "Lude 'x'");"#,
    ] {
        assert_eq!(reason(text), "assembler text that reads a file", "{text}");
    }
    assert_eq!(reason(r#"asm(".inc%c0 \"x\"" :: "i"(bin));"#), "assembler text that may read a file");
    assert_eq!(reason(r#"asm(".macro m a\n.\\a");"#), "assembler text that may read a file");
    assert_eq!(reason(r#"asm(".MACRO m");"#), "assembler text that may read a file");
    assert_eq!(reason("asm((text()));"), "assembler text that is computed");
    assert_eq!(reason("asm { mov x, y }"), "block of assembler");
}

#[test]
fn ordinary_assembler_text_is_fine() {
    found(
        r#"extern int f(int) __asm__("" "__isoc99_f"); asm volatile("nop\n\tmov %0, %1" : "=r"(x) : "r"((y)+(z)));"#,
    );
    found(r#"const char *help = "use .macro or a \\ here";"#);
}

#[test]
fn the_name_of_the_folder_is_seen_in_literals_alone() {
    assert!(found(r#"const char *f = "/home/me/x/a.cc";"#).holds_place);
    assert!(found(r#"const char *f = "/ho" "me/me/x/a.cc";"#).holds_place);
    assert!(found("int x = f(__builtin_FILE());").holds_place);
    assert!(!found("# 1 \"/home/me/x/a.cc\"\n# 1 \"/home/me/x//\"\nint x;").holds_place);
}

#[test]
fn pasted_dates_and_times_are_seen() {
    assert!(found(r#"f("00:16:40");"#).holds_date);
    assert!(!found(r#"f("00:00:00");"#).holds_date);
    assert!(found(r#"f("Nov 21 2026");"#).holds_date);
    assert!(found(r#"f("Sat Nov 21 05:27:09 2026");"#).holds_date);
    assert!(!found(r#"f("Not a date!");"#).holds_date);
}

#[test]
fn what_leads_elsewhere_is_refused() {
    assert_eq!(reason("#include \"/etc/x.h\"\n"), "`#include` of an absolute path");
    assert_eq!(reason("#pragma clang module import x\n"), "modules");
    assert_eq!(
        reason(r#"__attribute__((target("arch=native"))) void f();"#),
        "code for this very processor (`native`)"
    );
    let modern = Looking { standard: Some("c++20"), ..LOOKING };
    for text in ["import <vector>;", "export module x;", "module;"] {
        assert_eq!(read(text.as_bytes(), &modern).unwrap_err().as_str(), "modules", "{text}");
    }
    assert!(read(b"import = 1; module(x);", &modern).is_ok());
}

#[test]
fn assembler_without_parentheses_is_refused_where_there_is_such() {
    let looking = Looking { has_assembler_blocks: true, ..LOOKING };
    for text in [
        "__asm .incbin \"x\"\n",
        "__asm mov eax, 1\n",
        "__asm { nop }",
        "_asm volatile nop\n",
        "__asm\n.incbin \"x\"",
    ] {
        let found = read(text.as_bytes(), &looking).expect_err(text).to_string();
        assert_eq!(found, "block of assembler", "{text}");
    }
    for text in ["__asm__ __volatile__ (\"nop\");", "__asm (\"nop\");", "int a;"] {
        assert!(read(text.as_bytes(), &looking).is_ok(), "{text}");
    }
}

#[test]
fn namespaces_without_a_name_are_seen() {
    for text in ["namespace { int x; }", "namespace\n# 3 \"x.h\"\n{}", "inline namespace [[a]] {}"] {
        assert!(found(text).has_unnamed_namespace, "{text}");
    }
    for text in ["namespace a { int x; }", "namespace a::b {}", "int namespaces;", "\"namespace {\""] {
        assert!(!found(text).has_unnamed_namespace, "{text}");
    }
}

#[test]
fn markers_that_do_not_say_what_is_entered_are_refused() {
    assert_eq!(reason("#line 1 \"a.h\"\nint x;\n"), "line marker of an unusual shape");
}
