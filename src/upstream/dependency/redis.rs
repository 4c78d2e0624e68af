//! Redis and Valkey: AUTH when there is a password, then PING, answered PONG.

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::{hear, quoted, say};
use crate::core::dependency::Server;
use crate::upstream::io::Io;

pub(super) async fn check(mut io: Io, server: &Server) -> Result<(), String> {
    let mut heard = BytesMut::new();
    if let Some(password) = &server.password {
        let user = server.user.as_deref();
        let words: Vec<&str> = ["AUTH"].into_iter().chain(user).chain([password.as_str()]).collect();
        say(&mut io, &command(&words)).await?;
        expect("OK", &line(&mut io, &mut heard).await?)?;
    }
    say(&mut io, &command(&["PING"])).await?;
    expect("PONG", &line(&mut io, &mut heard).await?)?;
    // It is well; how the goodbye goes changes nothing.
    let _ = io.shutdown().await;
    Ok(())
}

/// RESP: an array of bulk strings.
fn command(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    out.into_bytes()
}

async fn line(io: &mut Io, heard: &mut BytesMut) -> Result<String, String> {
    loop {
        if let Some(end) = heard.windows(2).position(|pair| pair == b"\r\n") {
            let line = heard.split_to(end + 2);
            return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        hear(io, heard).await?;
    }
}

fn expect(wanted: &str, line: &str) -> Result<(), String> {
    if line.strip_prefix('+') == Some(wanted) {
        return Ok(());
    }
    let Some(error) = line.strip_prefix('-') else {
        return Err("it answered something that is not Redis's protocol; is it the right port?".to_owned());
    };
    let means = match error.split(' ').next().unwrap_or_default() {
        "NOAUTH" => "it asks for a password, and the URL has none",
        "WRONGPASS" => "the password is wrong",
        "NOPERM" => "this user may not PING",
        "LOADING" => "it is loading its data and not ready yet",
        "MASTERDOWN" => "its primary is down",
        "DENIED" => "it is in protected mode and takes no connections from here",
        _ => "it refuses",
    };
    Err(format!("{means}: {}", quoted(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        assert_eq!(command(&["PING"]), b"*1\r\n$4\r\nPING\r\n");
        assert_eq!(command(&["AUTH", "u", "p w"]), b"*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$3\r\np w\r\n");
    }

    #[test]
    fn answers_are_told_in_words() {
        assert_eq!(expect("PONG", "+PONG"), Ok(()));
        for (line, words) in [
            ("-NOAUTH Authentication required.", "asks for a password"),
            ("-WRONGPASS invalid username-password pair", "password is wrong"),
            ("-LOADING Redis is loading the dataset in memory", "loading"),
            ("-ERR unknown command", "it refuses: ERR unknown command"),
            ("HTTP/1.1 400 Bad Request", "not Redis's protocol"),
            ("+PONGS", "not Redis's protocol"),
            ("", "not Redis's protocol"),
        ] {
            let told = expect("PONG", line).expect_err("not a pong");
            assert!(told.contains(words), "{line}: {told}");
        }
    }
}
