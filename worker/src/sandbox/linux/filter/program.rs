//! Rules become a program of the kernel's packet filter: a search tree over the calls' numbers.

use nix::libc::{
    self, BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET,
    BPF_W, sock_filter,
};

use super::calls::{Among, Rule, When};

/// Where in the kernel's description of a call things are, in bytes.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The processor as the kernel's audit names it: `EM_…` with the bits for 64 and little-endian.
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// On `x86_64`, numbers from here are those of the x32 ABI. Elsewhere, there are none.
const FOREIGN: u32 = 0x4000_0000;

/// Calls from here on are younger than this program: none of them has been thought about.
pub(super) const UNKNOWN: u32 = 463;

const ALLOW: sock_filter = statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW);
const KILL: sock_filter = statement(BPF_RET | BPF_K, libc::SECCOMP_RET_KILL_PROCESS);

/// The program that refuses what the rules say, kills what comes by another ABI, and allows the rest.
///
/// Rules are sorted by their number, each number once.
pub(super) fn of(rules: &[Rule]) -> Vec<sock_filter> {
    assert!(rules.is_sorted_by(|a, b| a.number < b.number), "each call once, in order");
    let mut program = vec![
        load(ARCHITECTURE),
        jump(BPF_JEQ, NATIVE, 1, 0),
        KILL,
        load(NUMBER),
        jump(BPF_JGE, FOREIGN, 0, 1),
        KILL,
        jump(BPF_JGE, UNKNOWN, 0, 1),
        refuse(libc::ENOSYS),
    ];
    program.extend(tree(rules));
    program
}

fn tree(rules: &[Rule]) -> Vec<sock_filter> {
    match rules {
        [] => vec![ALLOW],
        [rule] => {
            let mut code = vec![jump(BPF_JEQ, rule.number, 1, 0), ALLOW];
            code.extend(answer(rule));
            code
        }
        rules => {
            let middle = rules.len() / 2;
            let (below, above) = (tree(&rules[..middle]), tree(&rules[middle..]));
            let over = u32::try_from(below.len()).expect("a filter has some hundred instructions");
            // Conditional jumps reach 255 instructions, this one as far as it has to.
            let mut code = vec![jump(BPF_JGE, rules[middle].number, 0, 1), statement(BPF_JMP | BPF_JA, over)];
            code.extend(below);
            code.extend(above);
            code
        }
    }
}

/// What happens to a call that a rule is about.
fn answer(rule: &Rule) -> Vec<sock_filter> {
    let refused = refuse(rule.errno);
    match rule.when {
        When::Always => vec![refused],
        When::AnyOf { argument, bits } => {
            vec![load_argument(argument), jump(BPF_JSET, bits, 0, 1), refused, ALLOW]
        }
        When::AnyOfIf { argument, bits, flags, wanted } => vec![
            load_argument(flags),
            jump(BPF_JSET, wanted, 1, 0),
            ALLOW,
            load_argument(argument),
            jump(BPF_JSET, bits, 0, 1),
            refused,
            ALLOW,
        ],
        When::OneOf { argument, values } => compared(argument, values, refused, ALLOW),
        When::NoneOf { argument, values } => compared(argument, values, ALLOW, refused),
        When::Unless(lists) => lists.iter().flat_map(|list| allowed(list)).chain([refused]).collect(),
    }
}

/// Allows a call if all of a list hold, and else goes on behind this code.
fn allowed(list: &[Among]) -> Vec<sock_filter> {
    let mut code = vec![ALLOW];
    for Among { argument, mask, values } in list.iter().rev() {
        let mut before = vec![load_argument(*argument), statement(BPF_ALU | BPF_AND | BPF_K, *mask)];
        for (number, value) in values.iter().enumerate() {
            // Over the other values, and the way out.
            let over = u8::try_from(values.len() - number).expect("a list has some values");
            before.push(jump(BPF_JEQ, *value, over, 0));
        }
        let out = u32::try_from(code.len()).expect("a filter has some hundred instructions");
        before.push(statement(BPF_JMP | BPF_JA, out));
        code = [before, code].concat();
    }
    code
}

/// One end for a value that is among some, another for all the others.
fn compared(argument: u32, values: &[u32], among: sock_filter, other: sock_filter) -> Vec<sock_filter> {
    let mut code = vec![load_argument(argument)];
    for value in values {
        code.extend([jump(BPF_JEQ, *value, 0, 1), among]);
    }
    code.push(other);
    code
}

/// The lower half, which is all of it for the arguments that rules look at.
fn load_argument(index: u32) -> sock_filter {
    load(ARGUMENTS + 8 * index)
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn refuse(errno: i32) -> sock_filter {
    statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

#[allow(clippy::cast_possible_truncation, reason = "the constants of codes are below 256")]
const fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(test: u32, k: u32, if_true: u8, if_false: u8) -> sock_filter {
    sock_filter { jt: if_true, jf: if_false, ..statement(BPF_JMP | test | BPF_K, k) }
}
