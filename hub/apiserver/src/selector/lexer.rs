//! Cuts a label selector into tokens.

/// What a piece of the text is. Keywords are also identifiers where the grammar allows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Open,
    Close,
    Comma,
    Not,
    Equal,
    NotEqual,
    Above,
    Below,
    In,
    NotIn,
    Identifier,
    /// A run of operator characters that is no operator.
    Unknown,
    End,
}

/// Iterates over the tokens, without the end.
pub(super) struct Lexer<'a> {
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = (Token, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let first = self.rest.chars().next()?;
        if is_operator(first) {
            return Some(self.operator());
        }
        let end = self.rest.find(|c| is_operator(c) || is_blank(c)).unwrap_or(self.rest.len());
        let text = self.take(end);
        let token = match text {
            "in" => Token::In,
            "notin" => Token::NotIn,
            _ => Token::Identifier,
        };
        Some((token, text))
    }
}

impl<'a> Lexer<'a> {
    /// The longest operator at the start.
    fn operator(&mut self) -> (Token, &'a str) {
        const OPERATORS: [(&str, Token); 9] = [
            ("==", Token::Equal),
            ("!=", Token::NotEqual),
            ("=", Token::Equal),
            ("!", Token::Not),
            ("(", Token::Open),
            (")", Token::Close),
            (",", Token::Comma),
            (">", Token::Above),
            ("<", Token::Below),
        ];
        match OPERATORS.iter().find(|(text, _)| self.rest.starts_with(text)) {
            Some((text, token)) => (*token, self.take(text.len())),
            // Every operator character starts an operator, so this is never reached; the
            // whole rest is then one unknown piece rather than a panic.
            None => (Token::Unknown, self.take(self.rest.len())),
        }
    }

    fn take(&mut self, end: usize) -> &'a str {
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        text
    }
}

fn is_operator(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}
