//! The real servers and programs that stories stand on: database, mail, browser, clock, business service.

use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::browser::Browser;
use e2e::business::BusinessService;
use e2e::database::{Database, Engine};
use e2e::machine_clock::MachineClock;
use e2e::mailbox::Mail;
use e2e::patience::{SOON, eventually};
use e2e::postfix::Postfix;
use e2e::postgres::psql;
use e2e::process::{run, tied};
use e2e::scripted_mail::{Mood, ScriptedMailServer};
use thirtyfour::By;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

/// Sends one mail by hand and gives the server's last answer; `None` when it went away.
async fn post(port: u16, id: &str) -> Result<Option<String>> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let (input, mut output) = stream.into_split();
    let mut answers = BufReader::new(input).lines();
    let body = format!("Message-ID: <{id}>\r\nTo: ops@test.invalid\r\nSubject: =?utf-8?B?5bel5Y2V?=\r\n\r\n.. dots\r\n.");
    let mut last = answers.next_line().await?;
    for line in ["EHLO t", "MAIL FROM:<a@test.invalid>", "RCPT TO:<ops@test.invalid>", "DATA", &body] {
        if output.write_all(format!("{line}\r\n").as_bytes()).await.is_err() {
            return Ok(None);
        }
        loop {
            last = answers.next_line().await.unwrap_or(None);
            let Some(answer) = &last else { return Ok(None) };
            if answer.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
        if last.as_deref().is_some_and(|a| a.starts_with(['4', '5'])) {
            return Ok(last);
        }
    }
    Ok(last)
}

#[tokio::test]
async fn each_test_has_a_database_of_its_own_that_goes_with_it() -> Result<()> {
    let first = Database::fresh(Engine::Postgres).await?;
    let second = Database::fresh(Engine::Postgres).await?;
    assert_ne!(first.url(), second.url());
    let Database::Postgres { port, name, server: None } = &first else { return Ok(()) };
    let (port, name) = (*port, name.clone());
    drop(first);
    assert_eq!(psql(port, &format!("select count(*) from pg_database where datname = '{name}'"))?.trim(), "0");
    Ok(())
}

#[tokio::test]
async fn the_real_mail_server_delivers_and_keeps_the_text() -> Result<()> {
    let server = Postfix::start().await?;
    let answer = post(server.port(), "one@test.invalid").await?.context("an answer")?;
    assert!(answer.starts_with("250"), "{answer}");
    let mails = eventually("the mail", SOON, async || Ok(Some(server.mails()?).filter(|m| !m.is_empty()))).await?;
    let Mail { subject, message_id, to, .. } = &mails[0];
    assert_eq!((subject.as_str(), message_id.as_str(), to[0].as_str()), ("工单", "one@test.invalid", "ops@test.invalid"));
    Ok(())
}

#[tokio::test]
async fn the_scripted_mail_server_fails_as_it_is_told() -> Result<()> {
    let server = ScriptedMailServer::start(Mood::Accepts).await?;
    assert!(post(server.port(), "a@x").await?.context("an answer")?.starts_with("250"));
    server.set_mood(Mood::RefusesForNow);
    assert!(post(server.port(), "b@x").await?.context("an answer")?.starts_with("452"));
    server.set_mood(Mood::RefusesForGood);
    assert!(post(server.port(), "c@x").await?.context("an answer")?.starts_with("550"));
    server.set_mood(Mood::DiesBeforeTaking);
    assert_eq!(post(server.port(), "d@x").await?, None);
    server.set_mood(Mood::DiesAfterTaking);
    assert_eq!(post(server.port(), "e@x").await?, None);
    server.set_mood(Mood::Slow(Duration::from_millis(5)));
    assert!(post(server.port(), "f@x").await?.context("an answer")?.starts_with("250"));
    let taken: Vec<(String, bool)> = server.taken().into_iter().map(|t| (t.mail.message_id, t.acknowledged)).collect();
    assert_eq!(taken, [("a@x".into(), true), ("e@x".into(), false), ("f@x".into(), true)]);
    assert_eq!(server.taken()[0].mail.text.trim_end(), ". dots");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_browser_shows_a_page_of_a_business_service() -> Result<()> {
    let service = BusinessService::start().await?;
    let browser = Browser::open("zh-CN").await?;
    browser.goto(service.url()).await?;
    let text = browser.find(By::Tag("body")).await?.text().await?;
    assert!(text.contains("business as usual"), "{text}");
    let language = browser.execute("return navigator.language", Vec::new()).await?;
    assert_eq!(language.json(), "zh-CN");
    browser.close().await
}

#[tokio::test]
async fn a_business_service_that_is_down_refuses_and_comes_back_on_its_port() -> Result<()> {
    let mut service = BusinessService::start().await?;
    let ask = async |url: String| {
        e2e::browser::install_crypto();
        Ok::<_, anyhow::Error>(reqwest::Client::builder().no_proxy().build()?.get(url).send().await?.status().as_u16())
    };
    assert_eq!(ask(service.url()).await?, 200);
    service.take_down().await;
    assert!(ask(service.url()).await.is_err());
    service.bring_back().await?;
    service.answer(503);
    assert_eq!(ask(service.url()).await?, 503);
    Ok(())
}

#[tokio::test]
async fn a_program_lives_by_the_clock_it_is_given() -> Result<()> {
    let clock = MachineClock::starting_at("1970-01-02T00:00:00Z".parse()?)?;
    let year = async || {
        let mut command = tied("date");
        command.arg("+%Y");
        clock.apply(&mut command);
        Ok::<_, anyhow::Error>(run(command, "", SOON).await?.good()?.stdout.trim().to_owned())
    };
    assert_eq!(year().await?, "1970");
    clock.jump_to_offset(3600 * 24 * 365 * 300)?;
    let jumped: i32 = year().await?.parse()?;
    assert!(jumped > 2300, "{jumped}");
    Ok(())
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_after_its_limit() -> Result<()> {
    let mut command = tied("sleep");
    command.arg("600");
    let error = run(command, "", Duration::from_millis(200)).await.expect_err("killed").to_string();
    assert!(error.contains("took longer"), "{error}");
    Ok(())
}
