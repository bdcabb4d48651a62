//! Include and exclude lists (restore-semantics 4.3) and the expansion of namespace wildcards (4.4).

use std::collections::BTreeSet;

use super::glob::{self, Glob};

/// Why the wildcards of namespace lists cannot be expanded; prints what follows Velero's lead-in [`WILDCARD_LEAD_IN`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WildcardError {
    /// One of the characters that globs elsewhere give a meaning to.
    #[error("wildcard pattern contains unsupported characters: |, (, ), !, {{, }}, ,")]
    UnsupportedCharacter,
    /// `**`.
    #[error("wildcard pattern contains consecutive asterisks (only single * allowed)")]
    ConsecutiveAsterisks,
    /// `[]`.
    #[error("wildcard pattern contains empty bracket pattern '[]'")]
    EmptyBrackets,
    /// A `[` without its `]`.
    #[error("wildcard pattern contains unclosed bracket '['")]
    UnclosedBracket,
    /// A `]` without its `[`.
    #[error("wildcard pattern contains unmatched closing bracket ']'")]
    UnmatchedBracket,
    /// `*` alone in the excludes.
    #[error("wildcard '*' is not allowed in excludes; leave the namespaces out of the includes instead")]
    ExcludesEverything,
    /// A pattern that is no glob.
    #[error(transparent)]
    Glob(#[from] glob::Error),
}

/// What stands before a [`WildcardError`] in Velero's results.
pub const WILDCARD_LEAD_IN: &str = "error expanding wildcard patterns in namespace includes/excludes: ";

/// Patterns of one list: sorted, each once, compiled as far as they can be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Patterns {
    globs: Vec<Glob>,
    has_star: bool,
    len: usize,
}

impl Patterns {
    fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let sorted: BTreeSet<&str> = patterns.into_iter().collect();
        // One that is no glob ends the matching: those that sort after it are never asked.
        let globs = sorted.iter().map_while(|pattern| Glob::new(pattern).ok()).collect();
        Self { globs, has_star: sorted.contains("*"), len: sorted.len() }
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn matches(&self, text: &str) -> bool {
        self.globs.iter().any(|glob| glob.matches(text))
    }
}

/// What is included and what is excluded; excludes win.
///
/// ```
/// use reprise::model::includes::IncludesExcludes;
/// let lists = IncludesExcludes::new(["team-*"], ["team-b"]);
/// assert!(lists.should_include("team-a"));
/// assert!(!lists.should_include("team-b") && !lists.should_include("other"));
/// assert!(IncludesExcludes::default().include_everything());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncludesExcludes {
    includes: Patterns,
    excludes: Patterns,
    includes_nothing: bool,
}

impl IncludesExcludes {
    /// Lists of glob patterns. Empty includes, or `*` among them, include all. A pattern that is no glob matches nothing, and
    /// hides the patterns of its list that sort after it, as for Velero.
    #[must_use]
    pub fn new<'a>(includes: impl IntoIterator<Item = &'a str>, excludes: impl IntoIterator<Item = &'a str>) -> Self {
        Self { includes: Patterns::new(includes), excludes: Patterns::new(excludes), includes_nothing: false }
    }

    /// Lists of group-resource patterns: each entry goes through `resolve` (which keeps what it does not know), and `*` is dropped
    /// from the excludes.
    #[must_use]
    pub fn resolved(includes: &[String], excludes: &[String], resolve: impl Fn(&str) -> String) -> Self {
        let resolve = |entry: &String| if entry == "*" { entry.clone() } else { resolve(entry) };
        let includes: Vec<String> = includes.iter().map(resolve).collect();
        let excludes: Vec<String> = excludes.iter().filter(|entry| *entry != "*").map(resolve).collect();
        Self::new(includes.iter().map(String::as_str), excludes.iter().map(String::as_str))
    }

    /// Lists of namespaces, with their wildcards expanded to the namespaces that have items (restore-semantics 4.4).
    ///
    /// Includes that expand to nothing include nothing. (Velero then includes everything, which is the opposite of what was asked.)
    ///
    /// # Errors
    /// [`WildcardError`] for the first pattern that is refused; only where something is to be expanded.
    pub fn namespaces<'a>(
        includes: &[String],
        excludes: &[String],
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, WildcardError> {
        let as_written = || Self::new(includes.iter().map(String::as_str), excludes.iter().map(String::as_str));
        let takes_all = includes.is_empty() || includes.iter().any(|include| include == "*");
        if takes_all || !includes.iter().chain(excludes).any(|pattern| has_wildcard(pattern)) {
            return Ok(as_written());
        }
        let candidates: BTreeSet<&str> = candidates.into_iter().collect();
        let included = expand(includes, &candidates)?;
        if excludes.iter().any(|exclude| exclude == "*") {
            return Err(WildcardError::ExcludesEverything);
        }
        let excluded = expand(excludes, &candidates)?;
        let includes_nothing = included.is_empty();
        Ok(Self { includes_nothing, ..Self::new(included, excluded) })
    }

    /// Whether something of this name is included.
    #[must_use]
    pub fn should_include(&self, name: &str) -> bool {
        if self.includes_nothing || self.excludes.matches(name) {
            return false;
        }
        self.includes.is_empty() || self.includes.has_star || self.includes.matches(name)
    }

    /// Whether nothing is filtered at all: no excludes, and no includes but `*`.
    #[must_use]
    pub fn include_everything(&self) -> bool {
        let includes_all = self.includes.is_empty() || (self.includes.len == 1 && self.includes.has_star);
        !self.includes_nothing && self.excludes.is_empty() && includes_all
    }
}

fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

fn expand<'a>(patterns: &'a [String], candidates: &BTreeSet<&'a str>) -> Result<BTreeSet<&'a str>, WildcardError> {
    for pattern in patterns {
        check_wildcard(pattern)?;
    }
    let mut expanded = BTreeSet::new();
    for pattern in patterns {
        if has_wildcard(pattern) {
            let glob = Glob::new(pattern)?;
            expanded.extend(candidates.iter().filter(|candidate| glob.matches(candidate)));
        } else {
            expanded.insert(pattern.as_str());
        }
    }
    Ok(expanded)
}

/// Namespace wildcards are `*`, `?` and `[...]` only.
fn check_wildcard(pattern: &str) -> Result<(), WildcardError> {
    if pattern.contains(['|', '(', ')', '!', '{', '}', ',']) {
        return Err(WildcardError::UnsupportedCharacter);
    }
    if pattern.contains("**") {
        return Err(WildcardError::ConsecutiveAsterisks);
    }
    let mut rest = pattern;
    while let Some(at) = rest.find(['[', ']']) {
        let (bracket, after) = rest[at..].split_at(1);
        if bracket == "]" {
            return Err(WildcardError::UnmatchedBracket);
        }
        let (content, after) = after.split_once(']').ok_or(WildcardError::UnclosedBracket)?;
        if content.is_empty() {
            return Err(WildcardError::EmptyBrackets);
        }
        rest = after;
    }
    Ok(())
}

/// Whether two lists go together (restore-semantics 1.4, steps 3 and 4): one message for each thing that is wrong, to be put
/// behind "Invalid included/excluded resource lists: " or "... namespace lists: ".
#[must_use]
pub fn validate(includes: &[String], excludes: &[String]) -> Vec<String> {
    let includes: BTreeSet<&String> = includes.iter().collect();
    let excludes: BTreeSet<&String> = excludes.iter().collect();
    let mut messages = Vec::new();
    let is_star = |entry: &&String| *entry == "*";
    if includes.len() > 1 && includes.iter().any(is_star) {
        messages.push("includes list must either contain '*' only, or a non-empty list of items".to_owned());
    }
    if excludes.iter().any(is_star) {
        messages.push("excludes list cannot contain '*'".to_owned());
    }
    for both in excludes.iter().filter(|exclude| includes.contains(**exclude)) {
        messages.push(format!("excludes list cannot contain an item in the includes list: {both}"));
    }
    messages
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn list(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    #[test]
    fn excludes_win_and_empty_includes_take_all() {
        // restore-semantics 4.3
        for (includes, excludes, name, expected) in [
            (vec![], vec![], "a", true),
            (vec!["*"], vec![], "a", true),
            (vec!["a"], vec![], "a", true),
            (vec!["a"], vec![], "b", false),
            (vec!["a*"], vec!["ab"], "ab", false),
            (vec!["*", "b"], vec![], "a", true),
            (vec![], vec!["kube-*"], "kube-system", false),
            (vec!["*"], vec!["kube-*"], "kube-system", false),
            (vec!["{a,b}"], vec![], "b", true),
        ] {
            let lists = IncludesExcludes::new(includes.clone(), excludes.clone());
            assert_eq!(lists.should_include(name), expected, "{includes:?} {excludes:?} {name}");
        }
    }

    /// restore-semantics 4.3
    #[test]
    fn everything_means_no_filter_at_all() {
        for (includes, excludes, expected) in [
            (vec![], vec![], true),
            (vec!["*"], vec![], true),
            (vec!["**"], vec![], false),
            (vec!["a"], vec![], false),
            (vec![], vec!["a"], false),
            (vec!["*"], vec!["a"], false),
            (vec!["*", "a"], vec![], false),
        ] {
            let lists = IncludesExcludes::new(includes.clone(), excludes.clone());
            assert_eq!(lists.include_everything(), expected, "{includes:?} {excludes:?}");
        }
    }

    /// restore-semantics 4.3
    #[test]
    fn a_pattern_that_is_no_glob_hides_those_that_sort_after_it() {
        let lists = IncludesExcludes::new(["a", "[", "z"], []);
        assert!(!lists.should_include("a") && !lists.should_include("z")); // '[' sorts before 'a'
        let lists = IncludesExcludes::new(["A", "[", "z"], []);
        assert!(lists.should_include("A") && !lists.should_include("z"));
        let lists = IncludesExcludes::new([], ["[", "z"]);
        assert!(lists.should_include("z"));
        assert!(!lists.include_everything());
    }

    /// restore-semantics 4.3
    #[test]
    fn resource_entries_are_resolved_except_the_star() {
        let resolve = |entry: &str| if entry == "cm" { "configmaps".to_owned() } else { format!("<{entry}>") };
        let lists = IncludesExcludes::resolved(&list(&["*"]), &list(&["*", "cm"]), resolve);
        assert!(lists.should_include("pods") && !lists.should_include("configmaps"));
        assert!(!lists.include_everything());
        let lists = IncludesExcludes::resolved(&[], &list(&["*"]), resolve);
        assert!(lists.include_everything());
        let lists = IncludesExcludes::resolved(&list(&["cm", "x"]), &[], resolve);
        assert!(lists.should_include("configmaps") && lists.should_include("<x>") && !lists.should_include("x"));
    }

    const CANDIDATES: [&str; 3] = ["c18-db", "c18-web-1", "c18-web-2"];

    fn taken(includes: &[&str], excludes: &[&str]) -> Result<Vec<&'static str>, String> {
        let lists = IncludesExcludes::namespaces(&list(includes), &list(excludes), CANDIDATES);
        let lists = lists.map_err(|error| error.to_string())?;
        Ok(CANDIDATES.into_iter().filter(|namespace| lists.should_include(namespace)).collect())
    }

    /// restore-semantics 4.4
    #[test]
    fn namespace_wildcards_take_what_velero_takes() {
        // Conformance case 18.
        for (includes, excludes, expected) in [
            (vec!["c18-web-*"], vec![], vec!["c18-web-1", "c18-web-2"]),
            (vec!["c18-web-?"], vec![], vec!["c18-web-1", "c18-web-2"]),
            (vec!["c18-web-[1]"], vec![], vec!["c18-web-1"]),
            (vec!["c18-*"], vec!["c18-web-2"], vec!["c18-db", "c18-web-1"]),
            (vec!["c18-db", "c18-w*1"], vec!["c18-no*"], vec!["c18-db", "c18-web-1"]),
            (vec!["*"], vec!["c18-w*"], vec!["c18-db"]),
            (vec![], vec!["c18-web-?"], vec!["c18-db"]),
            (vec!["c18-web-1", "c18-db"], vec!["c18-d*"], vec!["c18-web-1"]),
            (vec!["c18-{web-1,db}"], vec![], vec!["c18-db", "c18-web-1"]),
        ] {
            assert_eq!(taken(&includes, &excludes), Ok(expected), "{includes:?} {excludes:?}");
        }
    }

    /// restore-semantics 4.4
    #[test]
    fn refused_namespace_wildcards_have_veleros_texts() {
        let characters = "wildcard pattern contains unsupported characters: |, (, ), !, {, }, ,";
        for (pattern, message) in [
            ("c18-{web-1,db}*", characters),
            ("c18-web-[!1]", characters),
            ("a|b*", characters),
            ("c18-**", "wildcard pattern contains consecutive asterisks (only single * allowed)"),
            ("c18-[web*", "wildcard pattern contains unclosed bracket '['"),
            ("c18-[]*", "wildcard pattern contains empty bracket pattern '[]'"),
            ("c18-]*", "wildcard pattern contains unmatched closing bracket ']'"),
            ("[a-zA]", "expected close range character"),
        ] {
            assert_eq!(taken(&[pattern], &[]), Err(message.to_owned()), "{pattern}");
            assert_eq!(taken(&["c18-db"], &[pattern]), Err(message.to_owned()), "{pattern} excluded");
        }
        // A literal entry is checked too, once there is something to expand.
        assert_eq!(taken(&["c18-*", "{a}"], &[]), Err(characters.to_owned()));
        assert!(taken(&["c18-*"], &["*"]).is_err());
        // Without anything to expand nothing is checked.
        assert_eq!(taken(&["*"], &["c18-**"]), Ok(vec![]));
    }

    /// restore-semantics 4.4, the trap
    #[test]
    fn includes_that_match_nothing_take_nothing() {
        // where Velero takes everything.
        for excludes in [vec![], vec!["c18-db"]] {
            let lists = IncludesExcludes::namespaces(&list(&["c18-none-*"]), &list(&excludes), CANDIDATES).unwrap();
            assert!(!lists.include_everything());
            assert!(CANDIDATES.iter().all(|namespace| !lists.should_include(namespace)));
        }
    }

    /// restore-semantics 1.4 rules 3 and 4
    #[test]
    fn lists_that_do_not_go_together_are_told_in_veleros_words() {
        // Conformance case 26.
        let both = "excludes list cannot contain an item in the includes list: ";
        let star = "includes list must either contain '*' only, or a non-empty list of items";
        assert_eq!(validate(&list(&["*", "pods"]), &[]), [star]);
        assert_eq!(validate(&[], &list(&["*", "nodes"])), ["excludes list cannot contain '*'"]);
        assert_eq!(
            validate(&list(&["pods", "configmaps"]), &list(&["secrets", "pods", "configmaps"])),
            [format!("{both}configmaps"), format!("{both}pods")]
        );
        assert_eq!(
            validate(&list(&["*", "a"]), &list(&["*"])),
            [star.to_owned(), "excludes list cannot contain '*'".to_owned(), format!("{both}*")]
        );
        assert!(validate(&list(&["*"]), &list(&["a"])).is_empty());
        assert!(validate(&list(&["*", "*"]), &[]).is_empty());
    }

    /// Whether a pattern of letters, `*`, `?` and `[xy]` matches, by trying everything; `None` for what is no glob.
    fn naive_glob(pattern: &[char], text: &[char]) -> Option<bool> {
        match pattern {
            [] => Some(text.is_empty()),
            ['*', rest @ ..] => {
                let tried: Option<Vec<bool>> = (0..=text.len()).map(|at| naive_glob(rest, &text[at..])).collect();
                tried.map(|tried| tried.contains(&true))
            }
            ['[', one, other, ']', rest @ ..] => {
                let after = naive_glob(rest, text.get(1..).unwrap_or_default())?;
                Some(after && text.first().is_some_and(|it| it == one || it == other))
            }
            ['[', ..] => None,
            [it, rest @ ..] => {
                let after = naive_glob(rest, text.get(1..).unwrap_or_default())?;
                Some(after && text.first().is_some_and(|first| *it == '?' || first == it))
            }
        }
    }

    /// A list in the order of its bytes: the first that is no glob ends it.
    fn naive_list(patterns: &[String], name: &str) -> bool {
        let (mut sorted, name): (Vec<&String>, Vec<char>) = (patterns.iter().collect(), name.chars().collect());
        sorted.sort();
        for pattern in sorted {
            match naive_glob(&pattern.chars().collect::<Vec<_>>(), &name) {
                Some(true) => return true,
                Some(false) => {}
                None => return false,
            }
        }
        false
    }

    /// `ShouldInclude` as the text of 4.3 has it.
    fn naive_include(includes: &[String], excludes: &[String], name: &str) -> bool {
        let takes_all = includes.is_empty() || includes.iter().any(|include| include == "*");
        !naive_list(excludes, name) && (takes_all || naive_list(includes, name))
    }

    /// Patterns of letters, wildcards and classes; `broken` ones among them.
    fn globs(broken: bool) -> impl Strategy<Value = Vec<String>> {
        let piece =
            prop_oneof![4 => "[a-c]", 1 => Just("*".to_owned()), 1 => Just("?".to_owned()), 1 => "\\[[a-c]{2}\\]"];
        let glob = proptest::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat());
        let glob = glob.prop_filter("two stars are one", |glob| !glob.contains("**"));
        let last = prop_oneof![6 => Just(String::new()), u32::from(broken) => "[a-b]?\\["];
        proptest::collection::vec((glob, last).prop_map(|(glob, last)| if last.is_empty() { glob } else { last }), 0..4)
    }

    fn patterns() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec(prop_oneof![4 => "[abc*?]{1,3}", 1 => "\\[", 1 => "[a-c]"], 0..4)
    }

    proptest! {
        /// restore-semantics 4.3, against a matcher that tries everything.
        #[test]
        fn lists_take_what_the_text_says(includes in globs(true), excludes in globs(true), name in "[a-c]{0,4}") {
            let lists = IncludesExcludes::new(includes.iter().map(String::as_str), excludes.iter().map(String::as_str));
            let expected = naive_include(&includes, &excludes, &name);
            prop_assert_eq!(lists.should_include(&name), expected, "{:?} {:?} {:?}", includes, excludes, name);
        }

        /// restore-semantics 4.4, against the same: where something is expanded, it is to the namespaces that have items.
        #[test]
        fn namespace_wildcards_are_expanded_as_the_text_says(
            includes in globs(false), excludes in globs(false),
            candidates in proptest::collection::btree_set("[a-c]{1,3}", 0..6), other in "[a-c]{1,3}",
        ) {
            let lists = IncludesExcludes::namespaces(&includes, &excludes, candidates.iter().map(String::as_str));
            let wild = |list: &[String]| list.iter().any(|pattern| pattern.contains(['*', '?', '[']));
            let star = |list: &[String]| list.iter().any(|pattern| pattern == "*");
            let expands = !includes.is_empty() && !star(&includes) && (wild(&includes) || wild(&excludes));
            if expands && star(&excludes) {
                prop_assert!(lists.is_err());
                return Ok(());
            }
            let lists = lists.unwrap();
            for name in &candidates {
                let expected = naive_include(&includes, &excludes, name);
                prop_assert_eq!(lists.should_include(name), expected, "{:?} {:?} {}", includes, excludes, name);
            }
            if expands && !candidates.contains(&other) {
                // An entry that is no pattern passes as it stands, whether it is a namespace of the backup or not.
                let literal = includes.contains(&other) && !excludes.contains(&other);
                prop_assert_eq!(lists.should_include(&other), literal, "{:?} {:?} {}", includes, excludes, other);
            }
        }

        #[test]
        fn an_exclude_never_adds_and_the_order_never_matters(
            includes in patterns(), mut excludes in patterns(), more in "[abc*?]{1,3}", name in "[abc]{1,3}",
        ) {
            let include = |includes: &[String], excludes: &[String]| {
                IncludesExcludes::new(includes.iter().map(String::as_str), excludes.iter().map(String::as_str)).should_include(&name)
            };
            let before = include(&includes, &excludes);
            let reversed: Vec<String> = includes.iter().rev().cloned().collect();
            prop_assert_eq!(include(&reversed, &excludes), before);
            excludes.retain(|exclude| exclude != "[");
            let before = include(&includes, &excludes);
            excludes.push(more);
            prop_assert!(before || !include(&includes, &excludes));
        }

        #[test]
        fn expansion_takes_what_matching_would(includes in proptest::collection::vec("[ab]?[*?]?[ab]", 1..3), excludes in proptest::collection::vec("[ab]?[*?]?[ab]", 0..3)) {
            let candidates = ["a", "b", "aa", "ab", "ba", "bb"];
            let expanded = IncludesExcludes::namespaces(&includes, &excludes, candidates).unwrap();
            let matched = IncludesExcludes::new(includes.iter().map(String::as_str), excludes.iter().map(String::as_str));
            for candidate in candidates {
                prop_assert_eq!(expanded.should_include(candidate), matched.should_include(candidate), "{}", candidate);
            }
        }
    }
}
