//! Writes a JSON value in any of its spellings. Bytes choose the spelling, so that a failure
//! can be repeated and shrunk; it draws no random number.

use super::json::{Decimal, Json};

impl Json {
    /// The value as text. `choices` choose white space, the order of members, escapes and
    /// the spellings of numbers. Too few choices are used again from the start; without any,
    /// the text is plain.
    pub fn render(&self, choices: &[u8]) -> String {
        let mut writer = Writer {
            out: String::new(),
            choices,
            at: 0,
        };
        writer.space();
        writer.value(self);
        writer.space();
        writer.out
    }
}

struct Writer<'c> {
    out: String,
    choices: &'c [u8],
    at: usize,
}

impl Writer<'_> {
    /// The next choice, less than `below`; most often 0 if few are left.
    fn choose(&mut self, below: usize) -> usize {
        if self.choices.is_empty() {
            return 0;
        }
        let choice = self.choices[self.at % self.choices.len()];
        // The round counts too, or a short list would always choose alike.
        let turned = usize::from(choice) + self.at / self.choices.len() * usize::from(choice != 0);
        self.at += 1;
        turned % below
    }

    fn space(&mut self) {
        if self.choose(4) == 3 {
            for _ in 0..=self.choose(3) {
                let space = [' ', '\n', '\t', '\r'][self.choose(4)];
                self.out.push(space);
            }
        }
    }

    fn token(&mut self, token: char) {
        self.space();
        self.out.push(token);
        self.space();
    }

    fn value(&mut self, value: &Json) {
        match value {
            Json::Null => self.out.push_str("null"),
            Json::Bool(true) => self.out.push_str("true"),
            Json::Bool(false) => self.out.push_str("false"),
            Json::Number(number) => self.number(number),
            Json::String(string) => self.string(string),
            Json::Array(elements) => {
                self.token('[');
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        self.token(',');
                    }
                    self.value(element);
                }
                self.token(']');
            }
            Json::Object(members) => {
                let mut left: Vec<_> = members.iter().collect();
                self.token('{');
                while !left.is_empty() {
                    let index = self.choose(left.len());
                    let (name, value) = left.remove(index);
                    self.string(name);
                    self.token(':');
                    self.value(value);
                    if !left.is_empty() {
                        self.token(',');
                    }
                }
                self.token('}');
            }
        }
    }

    fn string(&mut self, string: &str) {
        self.out.push('"');
        for character in string.chars() {
            let short = match character {
                '"' | '\\' | '/' => Some(character),
                '\u{8}' => Some('b'),
                '\u{c}' => Some('f'),
                '\n' => Some('n'),
                '\r' => Some('r'),
                '\t' => Some('t'),
                _ => None,
            };
            let bare = !matches!(character, '"' | '\\' | '\0'..='\u{1f}');
            match (self.choose(5), short) {
                (0..=2, _) if bare => self.out.push(character),
                (0..=3, Some(short)) => self.out.extend(['\\', short]),
                _ => self.code_units(character),
            }
        }
        self.out.push('"');
    }

    fn code_units(&mut self, character: char) {
        for unit in character.encode_utf16(&mut [0; 2]) {
            let escape = if self.choose(2) == 0 {
                format!("\\u{unit:04x}")
            } else {
                format!("\\u{unit:04X}")
            };
            self.out.push_str(&escape);
        }
    }

    fn number(&mut self, number: &Decimal) {
        let negative = if number.digits.is_empty() {
            self.choose(2) == 1
        } else {
            number.negative
        };
        if negative {
            self.out.push('-');
        }
        let zeros = self.choose(4);
        let mut whole = number.digits.clone() + &"0".repeat(zeros);
        let mut exponent = number.exponent - zeros as i64;
        if self.choose(2) == 0 && (1..=30).contains(&exponent) {
            whole += &"0".repeat(exponent as usize);
            exponent = 0;
        }
        // Any digits may stand behind the point, more zeros before them.
        let point = whole.len() - self.choose(whole.len() + 1);
        let mut fraction = whole.split_off(point);
        if whole.is_empty() {
            whole.push('0');
            fraction.insert_str(0, &"0".repeat(self.choose(9)));
        }
        // The digits of zero may all be gone, or begin with one.
        if number.digits.is_empty() {
            whole = "0".to_owned();
        }
        exponent += fraction.len() as i64;
        self.out.push_str(&whole);
        if !fraction.is_empty() {
            self.out.push('.');
            self.out.push_str(&fraction);
        }
        if number.digits.is_empty() {
            exponent = self.choose(3) as i64;
        }
        if exponent != 0 || self.choose(8) == 7 {
            self.exponent(exponent);
        }
    }

    fn exponent(&mut self, exponent: i64) {
        let letter = ['e', 'E'][self.choose(2)];
        self.out.push(letter);
        let sign = match self.choose(3) {
            _ if exponent < 0 => "-",
            0 => "",
            1 => "+",
            _ if exponent == 0 => "-",
            _ => "+",
        };
        self.out.push_str(sign);
        let zeros = self.choose(12).saturating_sub(8);
        self.out.push_str(&"0".repeat(zeros));
        self.out.push_str(&exponent.unsigned_abs().to_string());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::strategies::{choices, json};

    #[test]
    fn text_without_choices_is_plain() {
        let text = r#"{"a":[1,-2,null,true],"b":"x\n\"é/","c":{},"d":1500}"#;
        assert_eq!(Json::read(text.as_bytes()).render(&[]), text);
    }

    proptest! {
        #[test]
        fn a_rendered_value_is_read_as_itself(value in json(), choices in choices()) {
            let text = value.render(&choices);
            prop_assert_eq!(Json::read(text.as_bytes()), value, "{}", text);
        }

        #[test]
        fn a_rendered_value_is_json(value in json(), choices in choices()) {
            let text = value.render(&choices);
            let read = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            prop_assert!(read.is_ok(), "{}: {:?}", text, read);
        }
    }
}
