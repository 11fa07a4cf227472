//! Just enough of Rust's syntax: what is code, what is comment, what is text, and where functions end.

use std::iter::Peekable;
use std::str::Chars;

/// A Rust file taken apart. Both layers have the lines and columns (in characters) of the file: what is not
/// in a layer is blank there. What stands between quotes is in neither; the quotes are code.
pub(crate) struct Layers {
    pub(crate) code: String,
    pub(crate) comments: String,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Line of its `fn`, from 1.
    pub(crate) line: usize,
    /// From its `fn` to its closing brace, both included.
    pub(crate) lines: usize,
}

impl Layers {
    pub(crate) fn of(text: &str) -> Self {
        let mut scanner = Scanner {
            rest: text.chars().peekable(),
            layers: Self { code: String::new(), comments: String::new() },
        };
        while let Some(next) = scanner.rest.next() {
            scanner.step(next);
        }
        scanner.layers
    }

    pub(crate) fn functions(&self) -> Vec<Function> {
        words(&self.code).filter(|(_, word)| *word == "fn").filter_map(|(at, _)| self.function(at)).collect()
    }

    /// The function whose `fn` stands at a byte, unless it has no name (a type) or no body (a promise).
    fn function(&self, at: usize) -> Option<Function> {
        let rest = &self.code[at..];
        let (name_at, name) = words(rest).nth(1)?;
        if !rest[2..name_at].trim().is_empty() {
            return None;
        }
        let mut depth = 0_i32;
        let mut open = 0_u32;
        for (end, sign) in rest.char_indices() {
            match sign {
                '(' | '[' => depth += 1,
                ')' | ']' => depth -= 1,
                ';' if depth == 0 && open == 0 => return None,
                '{' => open += 1,
                '}' => open = open.checked_sub(1)?,
                _ => continue,
            }
            if sign == '}' && open == 0 {
                let line = line_of(&self.code, at);
                let lines = rest[..end].matches('\n').count() + 1;
                return Some(Function { name: name.to_owned(), line, lines });
            }
        }
        None
    }
}

/// The line of a byte, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Identifiers, keywords and numbers, with the byte where each begins.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |sign: char| sign.is_alphanumeric() || sign == '_';
    let mut end = 0;
    std::iter::from_fn(move || {
        let start = end + code[end..].find(is_word)?;
        end = code[start..].find(|sign| !is_word(sign)).map_or(code.len(), |length| start + length);
        Some((start, &code[start..end]))
    })
}

/// What stands between the bracket at a byte and its partner.
pub(crate) fn between_brackets(code: &str, open_at: usize) -> &str {
    let mut depth = 0;
    for (at, sign) in code[open_at..].char_indices() {
        match sign {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &code[open_at + 1..open_at + at.max(1)];
        }
    }
    &code[open_at + 1..]
}

struct Scanner<'a> {
    rest: Peekable<Chars<'a>>,
    layers: Layers,
}

impl Scanner<'_> {
    fn step(&mut self, next: char) {
        let following = self.rest.peek().copied();
        match next {
            '/' if following == Some('/') => self.line_comment(),
            '/' if following == Some('*') => self.block_comment(),
            '"' => self.text(),
            '\'' => self.quote(),
            'r' | 'b' | 'c' if !self.in_word() => self.maybe_raw(next),
            other => self.push_code(other),
        }
    }

    fn in_word(&self) -> bool {
        self.layers.code.ends_with(|sign: char| sign.is_alphanumeric() || sign == '_')
    }

    fn push_code(&mut self, sign: char) {
        self.layers.code.push(sign);
        self.layers.comments.push(if sign == '\n' { '\n' } else { ' ' });
    }

    fn push_comment(&mut self, sign: char) {
        self.layers.comments.push(sign);
        self.layers.code.push(if sign == '\n' { '\n' } else { ' ' });
    }

    /// What is neither code nor comment.
    fn push_blank(&mut self, sign: char) {
        self.push_code(if sign == '\n' { '\n' } else { ' ' });
    }

    fn line_comment(&mut self) {
        self.push_comment('/');
        while let Some(sign) = self.rest.next_if(|sign| *sign != '\n') {
            self.push_comment(sign);
        }
    }

    fn block_comment(&mut self) {
        self.push_comment('/');
        let mut depth = 0;
        let mut before = ' ';
        while let Some(sign) = self.rest.next() {
            self.push_comment(sign);
            match (before, sign) {
                ('/' | ' ', '*') if depth == 0 => depth = 1,
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    before = sign;
                    continue;
                }
            }
            before = ' ';
            if depth == 0 {
                return;
            }
        }
    }

    /// A text whose opening quote has been read.
    fn text(&mut self) {
        self.push_code('"');
        while let Some(sign) = self.rest.next() {
            match sign {
                '"' => return self.push_code('"'),
                '\\' => {
                    self.push_blank(' ');
                    self.rest.next().into_iter().for_each(|escaped| self.push_blank(escaped));
                }
                other => self.push_blank(other),
            }
        }
    }

    /// A character or the beginning of a lifetime; its quote has been read.
    fn quote(&mut self) {
        self.push_code('\'');
        let mut ahead = self.rest.clone();
        let is_character = matches!((ahead.next(), ahead.next()), (Some('\\'), _) | (Some(_), Some('\'')));
        if !is_character {
            return;
        }
        let escaped = self.rest.next() == Some('\\');
        self.push_blank(' ');
        if escaped {
            self.rest.next().into_iter().for_each(|sign| self.push_blank(sign));
        }
        while let Some(sign) = self.rest.next() {
            if sign == '\'' {
                return self.push_code('\'');
            }
            self.push_blank(sign);
        }
    }

    /// A word that begins like `r"…"`, `br#"…"#`, `b"…"` or `c"…"`, and may be one.
    fn maybe_raw(&mut self, first: char) {
        self.push_code(first);
        if first != 'r' {
            match self.rest.peek() {
                Some('r') => self.rest.next().into_iter().for_each(|sign| self.push_code(sign)),
                _ => return,
            }
        }
        let hashes = self.rest.clone().take_while(|sign| *sign == '#').count();
        if self.rest.clone().nth(hashes) != Some('"') {
            return;
        }
        for _ in 0..=hashes {
            self.rest.next().into_iter().for_each(|sign| self.push_code(sign));
        }
        let end = format!("\"{}", "#".repeat(hashes));
        while let Some(sign) = self.rest.next() {
            let ended = sign == '"' && self.rest.clone().take(hashes).eq(end.chars().skip(1));
            if ended {
                self.push_code('"');
                return;
            }
            self.push_blank(sign);
        }
    }
}

#[test]
fn code_comments_and_texts_are_told_apart() {
    let check = |text: &str, code: &str, comments: &str| {
        let layers = Layers::of(text);
        assert_eq!((layers.code.trim_end(), layers.comments.trim()), (code, comments), "{text}");
    };
    check("a // b", "a", "// b");
    check("a /* b /* c */ d */ e", "a                   e", "/* b /* c */ d */");
    check("a(/**/)", "a(    )", "/**/");
    check("/*/ b */ a", "         a", "/*/ b */");
    check(r#"a("b // \" c")"#, r#"a("         ")"#, "");
    check(r##"a(r#"b " c"#)"##, r##"a(r#"     "#)"##, "");
    check(r#"a(br"b\") // c"#, r#"a(br"  ")"#, "// c");
    check(r#"a('"', '\'', '\u{41}', b'"') // c"#, r"a(' ', '  ', '      ', b' ')", "// c");
    check("fn a<'b>(c: &'b str) {} // d", "fn a<'b>(c: &'b str) {}", "// d");
    check("for r in c {} // d", "for r in c {}", "// d");
}

#[test]
fn functions_are_measured_from_fn_to_brace() {
    let functions = |text: &str| -> Vec<(String, usize, usize)> {
        Layers::of(text).functions().into_iter().map(|found| (found.name, found.line, found.lines)).collect()
    };
    assert_eq!(functions("fn a() {}"), [("a".into(), 1, 1)]);
    assert_eq!(functions("x\nfn a(b: [u8; 3])\nwhere\n{\n  if c { d }\n}\ny"), [("a".into(), 2, 5)]);
    assert_eq!(functions("trait A { fn b(); }\nfn c() {\n}"), [("c".into(), 2, 2)]);
    assert_eq!(functions("type A = fn(u8) -> u8; // fn b() {}"), []);
    assert_eq!(functions("fn a() {\n  fn b() {\n  }\n}"), [("a".into(), 1, 4), ("b".into(), 2, 2)]);
    assert_eq!(functions("fn a() {\n  \"}\";\n  '}';\n}"), [("a".into(), 1, 4)]);
}

#[test]
fn brackets_find_their_partner() {
    assert_eq!(between_brackets("a(b(c)[d])e", 1), "b(c)[d]");
    assert_eq!(between_brackets("a()", 1), "");
    assert_eq!(between_brackets("a(b", 1), "b");
}
