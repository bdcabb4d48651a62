//! The text form of selectors: its tokens and its grammar.
//!
//! ```text
//! selector    = [ requirement { "," requirement } ]
//! requirement = [ "!" ] KEY | KEY ( "=" | "==" | "!=" | ">" | "<" ) [ VALUE ] | KEY ( "in" | "notin" ) "(" values ")"
//! values      = [ VALUE ] { "," [ VALUE ] }
//! ```

use std::collections::BTreeSet;

use super::{Error, Operator, Requirement, validation};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
}

const END: Token<'static> = Token { kind: Kind::End, text: "" };

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

fn is_special(character: char) -> bool {
    matches!(character, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn tokens(mut rest: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    loop {
        rest = rest.trim_start_matches(is_space);
        let Some(first) = rest.chars().next() else { return tokens };
        let (kind, len) = match first {
            '=' if rest.starts_with("==") => (Kind::DoubleEquals, 2),
            '!' if rest.starts_with("!=") => (Kind::NotEquals, 2),
            '=' => (Kind::Equals, 1),
            '!' => (Kind::Not, 1),
            '(' => (Kind::Open, 1),
            ')' => (Kind::Close, 1),
            ',' => (Kind::Comma, 1),
            '>' => (Kind::Greater, 1),
            '<' => (Kind::Less, 1),
            _ => {
                let len = rest.find(|character| is_special(character) || is_space(character)).unwrap_or(rest.len());
                let kind = match &rest[..len] {
                    "in" => Kind::In,
                    "notin" => Kind::NotIn,
                    _ => Kind::Identifier,
                };
                (kind, len)
            }
        };
        let (text, after) = rest.split_at(len);
        tokens.push(Token { kind, text });
        rest = after;
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

/// Reads all requirements of a text, in its order.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, Error> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        let next = parser.peek();
        match next.kind {
            Kind::Identifier | Kind::Not => {}
            Kind::End => return Ok(requirements),
            _ => return Err(unexpected(next, "!, identifier, or 'end of string'")),
        }
        requirements.push(parser.requirement().map_err(|error| Error::Requirement(Box::new(error)))?);
        let after = parser.take();
        match after.kind {
            Kind::End => return Ok(requirements),
            Kind::Comma => {
                let next = parser.peek();
                if !matches!(next.kind, Kind::Identifier | Kind::Not) {
                    return Err(unexpected(next, "identifier after ','"));
                }
            }
            _ => return Err(unexpected(after, "',' or 'end of string'")),
        }
    }
}

fn unexpected(found: Token<'_>, expected: &str) -> Error {
    Error::Syntax(format!("found '{}', expected: {expected}", found.text))
}

impl<'a> Parser<'a> {
    /// The next token; `in` and `notin` are identifiers except in the place of an operator.
    fn peek(&self) -> Token<'a> {
        let token = self.tokens.get(self.at).copied().unwrap_or(END);
        match token.kind {
            Kind::In | Kind::NotIn => Token { kind: Kind::Identifier, ..token },
            _ => token,
        }
    }

    fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, Error> {
        let mut token = self.take();
        let is_negated = token.kind == Kind::Not;
        if is_negated {
            token = self.take();
        }
        if token.kind != Kind::Identifier {
            return Err(unexpected(token, "identifier"));
        }
        let key = token.text;
        let key_errors = validation::label_key(key);
        if !key_errors.is_empty() {
            return Err(Error::Invalid(vec![format!("<nil>: Invalid value: {key:?}: {}", key_errors.join("; "))]));
        }
        if is_negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek().kind, Kind::End | Kind::Comma) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::new(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, Error> {
        let token = self.tokens.get(self.at).copied().unwrap_or(END);
        self.at += 1;
        match token.kind {
            Kind::In => Ok(Operator::In),
            Kind::NotIn => Ok(Operator::NotIn),
            Kind::Equals => Ok(Operator::Equals),
            Kind::DoubleEquals => Ok(Operator::DoubleEquals),
            Kind::NotEquals => Ok(Operator::NotEquals),
            Kind::Greater => Ok(Operator::GreaterThan),
            Kind::Less => Ok(Operator::LessThan),
            _ => Err(unexpected(token, "in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn exact_value(&mut self) -> Result<String, Error> {
        if matches!(self.peek().kind, Kind::End | Kind::Comma) {
            return Ok(String::new());
        }
        let token = self.take();
        if token.kind == Kind::Identifier { Ok(token.text.to_owned()) } else { Err(unexpected(token, "identifier")) }
    }

    /// The values in parentheses, sorted and each once. An empty place between commas is the empty value.
    fn values(&mut self) -> Result<Vec<String>, Error> {
        let open = self.take();
        if open.kind != Kind::Open {
            return Err(Error::Syntax(format!("found '{}' expected: '('", open.text)));
        }
        let first = self.peek();
        if !matches!(first.kind, Kind::Identifier | Kind::Comma | Kind::Close) {
            return Err(unexpected(first, "',', ')' or identifier"));
        }
        let mut values = BTreeSet::new();
        loop {
            let mut token = self.take();
            let value = if token.kind == Kind::Identifier {
                let value = token.text;
                token = self.take();
                value
            } else {
                ""
            };
            match token.kind {
                Kind::Comma => values.insert(value.to_owned()),
                Kind::Close => {
                    values.insert(value.to_owned());
                    return Ok(values.into_iter().collect());
                }
                _ if value.is_empty() => return Err(unexpected(token, "',', or identifier")),
                _ => return Err(unexpected(token, "',' or ')'")),
            };
        }
    }
}
