//! Globs as Velero's include and exclude lists and its resource modifiers take them (restore-semantics 4.3, 8).
//!
//! | Pattern | Matches |
//! |---|---|
//! | `*` | any run of characters without a separator |
//! | `**` | any run of characters |
//! | `?` | one character that is no separator |
//! | `[abc]`, `[!abc]` | one character that is, or is not, listed |
//! | `[a-z]`, `[!a-z]` | one character that is, or is not, in the range |
//! | `{a,b*}` | one of the patterns; they nest |
//! | `\x` | the character `x` |
//!
//! Without separators `*` and `**` are the same. A `{` that is never closed is taken as closed at the end. Matching takes time in
//! proportion to pattern times text, whatever the pattern.
//!
//! ```
//! use reprise::model::glob::Glob;
//! let glob = Glob::new("team-{a,b}*").unwrap();
//! assert!(glob.matches("team-b.eu"));
//! assert!(!glob.matches("team-c"));
//! let one_segment = Glob::with_separators("*.apps", &['.']).unwrap();
//! assert!(one_segment.matches("deployments.apps"));
//! assert!(!one_segment.matches("a.b.apps"));
//! assert!(Glob::new("[a").is_err());
//! ```

use std::iter::Peekable;
use std::str::Chars;

/// Why a pattern is no glob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A `[` without its `]`.
    #[error("unexpected end of input")]
    UnexpectedEnd,
    /// A range such as `[a-zA]`, which goes on after its second character.
    #[error("expected close range character")]
    ExpectedClose,
    /// `[]` or `[!]`.
    #[error("could not parse range")]
    EmptyRange,
    /// A range whose second character comes before its first.
    #[error("hi character '{hi}' should be greater than lo '{lo}'")]
    Reversed {
        /// The first character.
        lo: char,
        /// The second character.
        hi: char,
    },
    /// The replacement character, which stands for text that could not be decoded.
    #[error("could not read rune")]
    Undecodable,
}

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    program: Program,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Program {
    /// Nothing is special in the pattern.
    Literal(String),
    /// A lone `*` or `**` without separators.
    Everything,
    /// States of an automaton; the run begins at the first and matches when it gets past the last.
    Automaton { states: Vec<State>, separators: Box<[char]> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// This character.
    Char(char),
    /// One character that is no separator.
    One,
    /// Any run of characters, without separators unless `crosses`.
    Many { crosses: bool },
    /// One of these characters, or none of them.
    List { chars: Box<[char]>, negated: bool },
    /// A character from one to another, or none of them.
    Range { lo: char, hi: char, negated: bool },
    /// Goes on at any of these states.
    Fork(Vec<usize>),
    /// Goes on at this state.
    Jump(usize),
}

impl Glob {
    /// Compiles a pattern without separators.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(pattern: &str) -> Result<Self, Error> {
        Self::with_separators(pattern, &[])
    }

    /// Compiles a pattern in which `*` and `?` stop at these characters.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn with_separators(pattern: &str, separators: &[char]) -> Result<Self, Error> {
        let states = Compiler::compile(pattern)?;
        let is_everything = |states: &[State]| match states {
            [State::Many { crosses }] => *crosses || separators.is_empty(),
            _ => false,
        };
        let literal: Option<String> =
            states.iter().map(|state| if let State::Char(it) = state { Some(*it) } else { None }).collect();
        let program = match literal {
            Some(text) => Program::Literal(text),
            None if is_everything(&states) => Program::Everything,
            None => Program::Automaton { states, separators: separators.into() },
        };
        Ok(Self { program })
    }

    /// Whether the whole text matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match &self.program {
            Program::Literal(literal) => literal == text,
            Program::Everything => true,
            Program::Automaton { states, separators } => run(states, separators, text),
        }
    }

    /// The only text that matches, when the pattern has nothing special.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        if let Program::Literal(literal) = &self.program { Some(literal) } else { None }
    }
}

/// An open `{`.
struct Group {
    fork: usize,
    ends: Vec<usize>,
}

struct Compiler<'a> {
    rest: Peekable<Chars<'a>>,
    states: Vec<State>,
    groups: Vec<Group>,
}

impl<'a> Compiler<'a> {
    fn compile(pattern: &'a str) -> Result<Vec<State>, Error> {
        if pattern.contains(char::REPLACEMENT_CHARACTER) {
            return Err(Error::Undecodable);
        }
        // A NUL ends the pattern, as in the library that Velero uses.
        let pattern = pattern.split('\0').next().unwrap_or_default();
        let mut compiler = Self { rest: pattern.chars().peekable(), states: Vec::new(), groups: Vec::new() };
        while let Some(character) = compiler.rest.next() {
            compiler.step(character)?;
        }
        while let Some(group) = compiler.groups.pop() {
            compiler.close(group);
        }
        Ok(compiler.states)
    }

    fn step(&mut self, character: char) -> Result<(), Error> {
        let state = match character {
            '\\' => match self.rest.next() {
                Some(escaped) => State::Char(escaped),
                None => return Ok(()),
            },
            '?' => State::One,
            '*' => State::Many { crosses: self.rest.next_if_eq(&'*').is_some() },
            '[' => self.range()?,
            '{' => {
                let fork = self.states.len();
                self.groups.push(Group { fork, ends: Vec::new() });
                State::Fork(vec![fork + 1])
            }
            ',' if let Some(group) = self.groups.last_mut() => {
                let end = self.states.len();
                group.ends.push(end);
                if let State::Fork(branches) = &mut self.states[group.fork] {
                    branches.push(end + 1);
                }
                State::Jump(end)
            }
            '}' if let Some(group) = self.groups.pop() => {
                self.close(group);
                return Ok(());
            }
            literal => State::Char(literal),
        };
        self.states.push(state);
        Ok(())
    }

    /// Lets all branches of a group go on where the pattern stands.
    fn close(&mut self, group: Group) {
        let after = self.states.len();
        for end in group.ends {
            self.states[end] = State::Jump(after);
        }
    }

    /// What follows a `[`.
    fn range(&mut self) -> Result<State, Error> {
        let negated = self.rest.next_if_eq(&'!').is_some();
        let mut ahead = self.rest.clone();
        let lo = ahead.next().ok_or(Error::UnexpectedEnd)?;
        if ahead.next() == Some('-') {
            self.rest = ahead;
            let hi = self.rest.next().ok_or(Error::UnexpectedEnd)?;
            return match self.rest.next() {
                None => Err(Error::UnexpectedEnd),
                Some(']') if hi < lo => Err(Error::Reversed { lo, hi }),
                Some(']') => Ok(State::Range { lo, hi, negated }),
                Some(_) => Err(Error::ExpectedClose),
            };
        }
        let mut chars = Vec::new();
        loop {
            match self.rest.next().ok_or(Error::UnexpectedEnd)? {
                ']' if chars.is_empty() => return Err(Error::EmptyRange),
                ']' => return Ok(State::List { chars: chars.into(), negated }),
                '\\' => chars.push(self.rest.next().ok_or(Error::UnexpectedEnd)?),
                character => chars.push(character),
            }
        }
    }
}

/// The states that a run may be in at once, each once.
struct Positions {
    marked: Vec<bool>,
    list: Vec<usize>,
}

impl Positions {
    fn new(states: usize) -> Self {
        Self { marked: vec![false; states + 1], list: Vec::new() }
    }

    /// Adds a position and all that are reached from it without a character.
    fn add(&mut self, states: &[State], position: usize) {
        let mut open = vec![position];
        while let Some(position) = open.pop() {
            if std::mem::replace(&mut self.marked[position], true) {
                continue;
            }
            self.list.push(position);
            match states.get(position) {
                Some(State::Fork(branches)) => open.extend(branches),
                Some(State::Jump(to)) => open.push(*to),
                Some(State::Many { .. }) => open.push(position + 1),
                _ => {}
            }
        }
    }

    fn clear(&mut self) {
        for position in self.list.drain(..) {
            self.marked[position] = false;
        }
    }
}

fn run(states: &[State], separators: &[char], text: &str) -> bool {
    let mut now = Positions::new(states.len());
    let mut next = Positions::new(states.len());
    now.add(states, 0);
    for character in text.chars() {
        for &position in &now.list {
            let to = match states.get(position) {
                Some(State::Char(wanted)) if *wanted == character => position + 1,
                Some(State::One) if !separators.contains(&character) => position + 1,
                Some(State::Many { crosses }) if *crosses || !separators.contains(&character) => position,
                Some(State::List { chars, negated }) if chars.contains(&character) != *negated => position + 1,
                Some(State::Range { lo, hi, negated }) if (*lo..=*hi).contains(&character) != *negated => position + 1,
                _ => continue,
            };
            next.add(states, to);
        }
        now.clear();
        std::mem::swap(&mut now, &mut next);
        if now.list.is_empty() {
            return false;
        }
    }
    now.marked[states.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::new(pattern).unwrap().matches(text)
    }

    #[test]
    fn without_separators_a_star_crosses_everything() {
        // restore-semantics 4.3
        for text in ["", "a", "a.b/c-d"] {
            assert!(matches("*", text) && matches("**", text) && matches("*?*", text) != text.is_empty(), "{text}");
        }
        assert!(matches("*.example.com", "foos.a.example.com"));
        assert!(!matches("*.example.com", "example.com"));
    }

    #[test]
    fn separators_stop_single_stars_and_question_marks() {
        // restore-semantics 8
        let glob = |pattern| Glob::with_separators(pattern, &['.']).unwrap();
        for (pattern, text, expected) in [
            ("*", "pods", true),
            ("*", "deployments.apps", false),
            ("*.apps", "deployments.apps", true),
            ("*.*", "ingresses.networking.k8s.io", false),
            ("*.**", "ingresses.networking.k8s.io", true),
            ("**", "ingresses.networking.k8s.io", true),
            ("a?b", "a.b", false),
            ("a[.]b", "a.b", true),
            ("a[!x]b", "a.b", true),
            ("{*,**}", "a.b", true),
        ] {
            assert_eq!(glob(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    /// restore-semantics 4.3
    #[test]
    fn every_construct_does_what_it_says() {
        for (pattern, yes, no) in [
            ("abc", vec!["abc"], vec!["", "ab", "abcd"]),
            ("", vec![""], vec!["a"]),
            ("a?c", vec!["abc", "aéc"], vec!["ac", "abbc"]),
            ("[abc]", vec!["a", "c"], vec!["d", "", "ab", "-"]),
            ("[!abc]", vec!["d", "!"], vec!["a", ""]),
            ("[a-c]x", vec!["ax", "cx"], vec!["dx", "-x"]),
            ("[!a-c]", vec!["d"], vec!["b"]),
            ("[abc-z]", vec!["-", "z", "c"], vec!["d"]),
            ("[-a]", vec!["-", "a"], vec!["b"]),
            ("[!!a]", vec!["b"], vec!["!", "a"]),
            ("[\\]]", vec!["]"], vec!["\\"]),
            ("{a,b*}", vec!["a", "b", "bcd"], vec!["ab", "ac", ""]),
            ("x{a,{b,c}d}y", vec!["xay", "xbdy", "xcdy"], vec!["xby", "xdy"]),
            ("{,a}b", vec!["b", "ab"], vec!["a"]),
            ("{}", vec![""], vec!["a", "{}"]),
            ("{a,b", vec!["a", "b"], vec!["{a,b"]),
            ("a}b,c]d", vec!["a}b,c]d"], vec!["ab"]),
            ("\\*\\?\\[\\{", vec!["*?[{"], vec!["a"]),
            ("{a\\,b\\}}", vec!["a,b}"], vec!["a"]),
            ("a\\", vec!["a"], vec!["a\\"]),
        ] {
            for text in yes {
                assert!(matches(pattern, text), "{pattern} should match {text}");
            }
            for text in no {
                assert!(!matches(pattern, text), "{pattern} should not match {text}");
            }
        }
    }

    /// restore-semantics 4.3
    #[test]
    fn what_is_no_glob_is_refused() {
        for (pattern, error) in [
            ("[", Error::UnexpectedEnd),
            ("[a", Error::UnexpectedEnd),
            ("[a-", Error::UnexpectedEnd),
            ("[a-b", Error::UnexpectedEnd),
            ("[a-]", Error::UnexpectedEnd),
            ("[]", Error::EmptyRange),
            ("[!]", Error::EmptyRange),
            ("[]a]", Error::EmptyRange),
            ("[a-zA]", Error::ExpectedClose),
            ("[z-a]", Error::Reversed { lo: 'z', hi: 'a' }),
            ("a\u{fffd}", Error::Undecodable),
        ] {
            assert_eq!(Glob::new(pattern), Err(error), "{pattern}");
        }
    }

    #[test]
    fn hostile_patterns_neither_blow_up_nor_overflow_the_stack() {
        let began = Instant::now();
        assert!(!matches(&"*a".repeat(200), &("a".repeat(199) + "b")));
        assert!(!matches(&"{a,a}*".repeat(100), &("a".repeat(400) + "b" + &"c".repeat(90))[..450].replace('a', "b")));
        assert!(matches(&"{".repeat(100_000), ""));
        assert!(!matches(&("{a,".repeat(20_000) + "b"), "c"));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }

    /// A matcher that tries everything: slow, and too simple to be wrong.
    #[derive(Clone, Debug)]
    enum Naive {
        Char(char),
        One,
        Many(bool),
        Set(Vec<char>, bool),
        Any(Vec<Vec<Naive>>),
    }

    impl Naive {
        fn write(parts: &[Self], out: &mut String) {
            for part in parts {
                match part {
                    Self::Char(it) => out.extend(['\\', *it]),
                    Self::One => out.push('?'),
                    Self::Many(crosses) => {
                        // Stars side by side would read differently; an empty group keeps them apart.
                        out.push_str(if out.ends_with('*') { "{}" } else { "" });
                        out.push_str(if *crosses { "**" } else { "*" });
                    }
                    Self::Set(chars, negated) => {
                        out.push_str(if *negated { "[!" } else { "[" });
                        out.extend(chars);
                        out.push(']');
                    }
                    Self::Any(branches) => {
                        for (at, branch) in branches.iter().enumerate() {
                            out.push(if at == 0 { '{' } else { ',' });
                            Self::write(branch, out);
                        }
                        out.push('}');
                    }
                }
            }
        }

        fn matches(parts: &[Self], text: &[char], separator: Option<char>) -> bool {
            let Some((first, rest)) = parts.split_first() else { return text.is_empty() };
            let one = |fits: &dyn Fn(char) -> bool| {
                text.split_first().is_some_and(|(it, after)| fits(*it) && Self::matches(rest, after, separator))
            };
            match first {
                Self::Char(wanted) => one(&|it| it == *wanted),
                Self::One => one(&|it| Some(it) != separator),
                Self::Set(chars, negated) => one(&|it| chars.contains(&it) != *negated),
                Self::Many(crosses) => (0..=text.len()).any(|len| {
                    let fits = *crosses || text[..len].iter().all(|it| Some(*it) != separator);
                    fits && Self::matches(rest, &text[len..], separator)
                }),
                Self::Any(branches) => branches.iter().any(|branch| {
                    let whole: Vec<Self> = branch.iter().chain(rest).cloned().collect();
                    Self::matches(&whole, text, separator)
                }),
            }
        }
    }

    fn naive() -> impl Strategy<Value = Vec<Naive>> {
        let leaf = prop_oneof![
            3 => proptest::char::range('a', 'c').prop_map(Naive::Char),
            1 => Just(Naive::Char('.')),
            1 => Just(Naive::One),
            2 => any::<bool>().prop_map(Naive::Many),
            1 => (proptest::collection::vec(proptest::char::range('a', 'c'), 1..3), any::<bool>())
                .prop_map(|(chars, negated)| Naive::Set(chars, negated)),
        ];
        let parts = proptest::collection::vec(leaf, 0..4);
        parts.prop_recursive(2, 12, 3, |inner| {
            (proptest::collection::vec(inner.clone(), 1..3), inner).prop_map(|(branches, mut rest)| {
                rest.insert(0, Naive::Any(branches));
                rest
            })
        })
    }

    proptest! {
        /// restore-semantics 4.3 and 8
        #[test]
        fn the_automaton_agrees_with_a_naive_matcher(parts in naive(), text in "[abc.]{0,6}", separated in any::<bool>()) {
            let mut pattern = String::new();
            Naive::write(&parts, &mut pattern);
            let separator = separated.then_some('.');
            let separators: Vec<char> = separator.into_iter().collect();
            let chars: Vec<char> = text.chars().collect();
            let glob = Glob::with_separators(&pattern, &separators).unwrap();
            prop_assert_eq!(glob.matches(&text), Naive::matches(&parts, &chars, separator), "{} {}", pattern, text);
        }

        #[test]
        fn compiling_never_panics(pattern in "[ab*?\\[\\]{},!\\\\\u{fffd}-]{0,16}", text in "[ab]{0,4}") {
            if let Ok(glob) = Glob::new(&pattern) {
                let _ = glob.matches(&text);
            }
        }

        #[test]
        fn a_pattern_without_anything_special_matches_only_itself(text in "[a-z0-9.:-]{0,12}", other in "[a-z0-9.:-]{0,12}") {
            let glob = Glob::new(&text).unwrap();
            prop_assert_eq!(glob.literal(), Some(text.as_str()));
            prop_assert_eq!(glob.matches(&other), text == other);
        }
    }
}
