// labelguard inside Label Studio's labeling page: shows an annotator what was noticed about their work.
//
// It is a guest in somebody else's page, and it fails open: whatever goes wrong here, or on labelguard's
// side, Label Studio works as if this script were not there. So every door into this file catches
// everything, every request has a deadline, and only a clear answer ever stops a save.
(() => {
  "use strict";
  // Label Studio fetches some of its pages and inserts them, script tags and all.
  if (window.labelguardPage) return;
  window.labelguardPage = true;

  const BASE = new URL(".", document.currentScript?.src || "/labelguard/page.js").pathname;
  const REQUEST_MS = 4000;
  // How long a save may wait for the blocking rules.
  const CHECK_MS = 1500;
  // After labelguard failed, saves do not wait for it for this long.
  const PAUSE_MS = 30000;
  const SESSION_MS = 50 * 60000;
  // Label Studio's own rhythm of saving drafts.
  const DRAFT_MS = 5000;
  const DISPUTE_CHARS = 2000;
  const SHORTCUT = "Alt+G";

  const nativeFetch = window.fetch;
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  // Wraps what others call (listeners, timers, handlers): nothing may leave it but a value.
  const guarded = (work, otherwise) => (...values) => {
    try {
      const value = work(...values);
      return value instanceof Promise ? value.catch(() => otherwise) : value;
    } catch {
      return otherwise;
    }
  };

  // --- Talking with labelguard -----------------------------------------------------------------------

  // The token lives in this variable only: storage would outlast the sign-in.
  let session = null;
  let sessionWanted = null;
  let quietUntil = 0;

  async function request(method, path, { body, token, timeout = REQUEST_MS } = {}) {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), timeout);
    try {
      const answer = await nativeFetch.call(window, BASE + path, {
        method,
        headers: {
          ...(body === undefined ? {} : { "Content-Type": "application/json" }),
          ...(token ? { "X-Labelguard-Session": token } : {}),
        },
        body: body === undefined ? undefined : JSON.stringify(body),
        credentials: "same-origin",
        cache: "no-store",
        signal: abort.signal,
      });
      const content = answer.ok ? await answer.json() : null;
      if (content === null || typeof content !== "object") {
        throw Object.assign(new Error("labelguard gave no usable answer"), { status: answer.status });
      }
      return content;
    } finally {
      clearTimeout(timer);
    }
  }

  async function openSession(project, timeout) {
    if (session && session.project === project && Date.now() - session.at < SESSION_MS) return session;
    if (Date.now() < quietUntil) throw new Error("labelguard failed a moment ago");
    // Saves in quick succession share one exchange.
    if (sessionWanted?.project !== project) {
      const answer = request("POST", "page/v1/session", { body: { project }, timeout }).then(
        (got) => {
          if (typeof got.token !== "string") throw new Error("labelguard gave no session");
          session = {
            project,
            at: Date.now(),
            token: got.token,
            blocking: got.blocking === true,
            language: typeof got.language === "string" ? got.language : "",
            strings: got.strings && typeof got.strings === "object" ? got.strings : {},
          };
          return session;
        },
        (error) => {
          quietUntil = Date.now() + PAUSE_MS / 2;
          throw error;
        },
      );
      sessionWanted = { project, answer };
      answer.catch(() => {}).finally(() => { sessionWanted = null; });
    }
    return sessionWanted.answer;
  }

  async function ask(project, method, path, options = {}) {
    const { token } = await openSession(project, options.timeout);
    try {
      return await request(method, path, { ...options, token });
    } catch (error) {
      if (error?.status !== 401) throw error;
      // The session ended (an hour is over, or labelguard was restarted): once more with a new one.
      session = null;
      return request(method, path, { ...options, token: (await openSession(project, options.timeout)).token });
    }
  }

  // --- After a save ----------------------------------------------------------------------------------

  const projectHere = () => Number(/\/projects\/(\d+)\//.exec(`${location.pathname}/`)?.[1]) || null;

  // Watching the requests, not the editor's events, survives every way of leaving the page and coming
  // back, and tells the saved annotation's id.
  function watchSaves() {
    window.fetch = function (...values) {
      const answer = nativeFetch.apply(this === undefined ? window : this, values);
      noteSave(values[0], values[1], answer);
      return answer;
    };
  }

  const noteSave = guarded((input, init, answer) => {
    const method = String(init?.method ?? input?.method ?? "GET").toUpperCase();
    if (method !== "POST" && method !== "PATCH") return;
    const url = new URL(input?.url ?? String(input), location.href);
    const created = method === "POST" && /\/api\/tasks\/\d+\/annotations\/?$/.test(url.pathname);
    const updated = method === "PATCH" && /\/api\/annotations\/\d+\/?$/.test(url.pathname);
    if (!created && !updated) return;
    answer
      .then((response) => (response.ok ? response.clone().json() : null))
      .then((saved) => {
        if (!Number.isInteger(saved?.id)) return undefined;
        stopKeepingDraft();
        panel.dropBlock();
        const project = Number(saved.project) || projectHere();
        return project ? lookForPrompts(project, saved) : undefined;
      })
      .catch(() => {});
  });

  let newestLook = 0;

  async function lookForPrompts(project, saved) {
    const look = ++newestLook;
    const query = new URLSearchParams({ project });
    if (saved) {
      query.set("annotation", saved.id);
      if (saved.task) query.set("task", saved.task);
      if (saved.updated_at) query.set("saved", saved.updated_at);
    }
    // Label Studio may tell labelguard of the save only after it answered us.
    for (const wait of [0, 700, 1500, 3000]) {
      await sleep(wait);
      if (look !== newestLook) return;
      const answer = await ask(project, "GET", `page/v1/prompts?${query}`);
      if (session && typeof answer.blocking === "boolean") session.blocking = answer.blocking;
      for (const prompt of Array.isArray(answer.prompts) ? answer.prompts : []) panel.add(project, prompt);
      if (answer.pending !== true) return;
    }
  }

  // --- Before a save ---------------------------------------------------------------------------------

  // Label Studio waits for this handler, and takes an exception for "no": it must always settle, soon.
  const beforeSave = guarded(async (store, annotation, about) => {
    const project = projectHere();
    if (!["submitAnnotation", "updateAnnotation"].includes(about?.event)) return undefined;
    if (!project || session?.project !== project || !session.blocking || Date.now() < quietUntil) return undefined;
    const outOfTime = Symbol("out of time");
    const judged = (async () => {
      // A draft on its way would be left behind by the save that overtakes it.
      await draftOnItsWay;
      return ask(project, "POST", "page/v1/check", {
        body: { project, task: store?.task?.id, result: annotation.serializeAnnotation() },
        timeout: CHECK_MS,
      });
    })();
    const answer = await Promise.race([judged.catch(() => outOfTime), sleep(CHECK_MS).then(() => outOfTime)]);
    if (answer === outOfTime) {
      quietUntil = Date.now() + PAUSE_MS;
      return undefined;
    }
    const reasons = Array.isArray(answer.blocks) ? answer.blocks.map((block) => block?.text) : [];
    if (!reasons.length || !reasons.every((text) => typeof text === "string" && text)) return undefined;
    panel.block(reasons);
    keepDraft(annotation);
    return false;
  });

  let draftTimer = null;
  let draftOnItsWay = Promise.resolve();

  // After a stopped save the editor never saves drafts of that annotation again (it stays marked as being
  // submitted), and a reload would lose the work. So it is done here until a save goes through.
  function keepDraft(annotation) {
    stopKeepingDraft();
    let kept = null;
    const keep = guarded(async () => {
      if (window.Htx?.annotationStore?.selected !== annotation) return stopKeepingDraft();
      const result = annotation.serializeAnnotation({ fast: true });
      const now = JSON.stringify(result);
      if (now === kept) return undefined;
      annotation.versions.draft = result;
      draftOnItsWay = Promise.resolve(window.Htx.submitDraft(annotation)).catch(() => {});
      await draftOnItsWay;
      kept = now;
      return undefined;
    });
    // The editor's own handling of the stopped save comes first.
    setTimeout(keep, 0);
    draftTimer = setInterval(keep, DRAFT_MS);
  }

  function stopKeepingDraft() {
    clearInterval(draftTimer);
    draftTimer = null;
  }

  // The event bus is a new one after leaving to another page and coming back.
  const known = new WeakSet();
  let lookedIn = null;

  const lookAround = guarded(() => {
    const events = window.DM?._sdk?.lsf?.lsfInstance?.events;
    if (!events) {
      lookedIn = null;
      return;
    }
    if (!known.has(events)) {
      known.add(events);
      events.on("beforeSaveAnnotation", beforeSave);
    }
    const project = projectHere();
    if (project && project !== lookedIn) {
      // What waits from before, and whether this project has rules that stop a save.
      lookedIn = project;
      lookForPrompts(project).catch(() => {});
    }
  });

  // --- Doing it again --------------------------------------------------------------------------------

  async function openAgain(project, { task, annotation }) {
    const lsf = window.DM?._sdk?.lsf;
    if (lsf?.labelStream && projectHere() === project) {
      try {
        // What Label Studio's own "previous task" does.
        await lsf.saveDraft?.();
        // It compares ids as text, and with a number shows whatever annotation of the task comes first.
        await lsf.loadTask(task, String(annotation), true);
        if (window.Htx?.annotationStore?.selected?.pk === String(annotation)) return;
      } catch {
        // The link below does the same outside the stream.
      }
    }
    location.assign(`/projects/${project}/data?task=${task}&annotation=${annotation}`);
  }

  // --- The card --------------------------------------------------------------------------------------

  const STYLE = `
    :host { all: initial; position: fixed; right: 16px; bottom: 64px; z-index: 10000; width: min(380px, calc(100vw - 24px));
      --ground: #fff; --ink: #1f2430; --soft: #5c6475; --line: #dfe2ea; --main: #4b5fc1; --main-ink: #fff; --mark: #4b5fc1;
      font: 14px/1.45 Figtree, system-ui, sans-serif; color: var(--ink); }
    :host([data-theme="dark"]) { --ground: #22252d; --ink: #eceef4; --soft: #a9b0c0; --line: #3b404d;
      --main: #8f9ff0; --main-ink: #14161c; --mark: #8f9ff0; }
    .card { box-sizing: border-box; max-height: min(60vh, 480px); overflow: auto; padding: 14px 16px 12px; background: var(--ground);
      border: 1px solid var(--line); border-radius: 12px; box-shadow: 0 8px 28px rgb(10 14 30 / 22%); overflow-wrap: anywhere; }
    .rework { --mark: #d98a00; } .block { --mark: #d0402b; } .thanks { --mark: #2e9e5b; }
    header { display: flex; align-items: center; gap: 8px; }
    .mark { flex: none; width: 9px; height: 9px; border-radius: 50%; background: var(--mark); }
    h2 { flex: 1; margin: 0; font-size: 14px; font-weight: 600; outline: none; }
    .count, .hint, .why { color: var(--soft); font-size: 12px; } .hint, .why { margin: 8px 0 0; }
    p, ul { margin: 8px 0 0; white-space: pre-line; } ul { padding-left: 20px; } li + li { margin-top: 4px; }
    .quoted { padding-left: 10px; border-left: 3px solid var(--line); color: var(--soft); }
    label { display: block; margin: 12px 0 4px; font-weight: 600; }
    textarea { box-sizing: border-box; width: 100%; padding: 8px; font: inherit; color: inherit; background: transparent;
      border: 1px solid var(--line); border-radius: 8px; resize: vertical; }
    .problem { color: #d0402b; } .problem:empty { display: none; }
    .actions { display: flex; flex-wrap: wrap; gap: 8px; margin-top: 12px; }
    button { min-height: 34px; padding: 0 14px; font: inherit; font-weight: 600; color: inherit; cursor: pointer;
      background: transparent; border: 1px solid var(--line); border-radius: 8px; }
    button.main { color: var(--main-ink); background: var(--main); border-color: transparent; }
    button:hover { filter: brightness(1.08); } button:disabled { opacity: 0.5; cursor: default; }
    button.close { min-height: 28px; width: 28px; padding: 0; border: 0; color: var(--soft); font-size: 20px; line-height: 1; }
    :focus-visible { outline: 2px solid var(--main); outline-offset: 2px; }
    .unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
    @media (hover: none), (max-width: 520px) { .hint { display: none; } :host { right: 12px; } button { min-height: 42px; } }
    @media (prefers-reduced-motion: no-preference) { .card { animation: rise 160ms ease-out; } }
    @keyframes rise { from { opacity: 0; transform: translateY(8px); } }`;

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "click") made.addEventListener("click", guarded(value));
      else if (value === true) made.setAttribute(name, "");
      else if (value !== undefined && value !== false) made.setAttribute(name, value);
    }
    // Strings become text nodes: whatever stands in a label or a name is never markup.
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  const panel = (() => {
    let root = null;
    let host = null;
    let place = null;
    let news = null;
    let cameFrom = null;
    let shown = null;
    let blocks = null;
    let note = null;
    const queue = [];
    const handled = new Set();

    const say = (key, values = {}) =>
      String(session?.strings?.[key] ?? "").replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);

    function build() {
      if (!host) {
        host = element("div", { id: "labelguard" });
        root = host.attachShadow({ mode: "open" });
        // A constructed sheet works under any Content-Security-Policy.
        const sheet = new CSSStyleSheet();
        sheet.replaceSync(STYLE);
        root.adoptedStyleSheets = [sheet];
        place = element("div");
        news = element("div", { class: "unseen", role: "status", "aria-live": "polite" });
        root.append(news, place);
        // Keys typed here would reach Label Studio's hotkeys: digits pick labels, Ctrl+Enter submits.
        for (const name of ["keydown", "keyup", "keypress"]) {
          host.addEventListener(name, guarded((event) => {
            event.stopPropagation();
            if (name === "keydown" && event.key === "Escape") leave();
          }));
        }
        for (const name of ["copy", "cut", "paste"]) {
          host.addEventListener(name, guarded((event) => event.stopPropagation()));
        }
      }
      if (!host.isConnected) document.body.append(host);
      host.lang = session?.language || "en";
      host.dataset.theme = document.documentElement.dataset.colorScheme === "dark" ? "dark" : "light";
    }

    function button(key, style, click) {
      return element("button", { type: "button", class: style, click }, say(key));
    }

    function card(kind, title, children, close) {
      build();
      const more = queue.length - 1;
      place.replaceChildren(
        element(
          "section",
          { class: `card ${kind}`, role: "dialog", "aria-labelledby": "title", "aria-describedby": "text" },
          element(
            "header",
            {},
            element("span", { class: "mark", "aria-hidden": "true" }),
            element("h2", { id: "title", tabindex: "-1" }, title),
            more > 0 && shown ? element("span", { class: "count" }, say("more", { n: more })) : null,
            element("button", { type: "button", class: "close", "aria-label": say("close"), click: close }, "\u00d7"),
          ),
          ...children,
        ),
      );
    }

    const inside = () => Boolean(root?.activeElement);

    function enter() {
      if (!inside()) cameFrom = document.activeElement;
      // By what they are for: in the document's order the closing cross would come first.
      const first = ["textarea", ".actions button", "button"].map((each) => place.querySelector(each)).find(Boolean);
      first?.focus();
    }

    // Closing gives the keyboard back to where it was.
    function giveBack(wasInside) {
      if (!wasInside) return;
      if (cameFrom?.isConnected) cameFrom.focus();
      else document.activeElement?.blur?.();
      cameFrom = null;
    }

    function announce(text) {
      // Screen readers tell changes only; the focus stays with the work.
      news.textContent = "";
      setTimeout(guarded(() => { news.textContent = text; }), 50);
    }

    function show() {
      const wasInside = inside();
      if (blocks) {
        shown = null;
        showBlock();
      } else if (note) {
        shown = null;
        card("thanks", note, [], leave);
      } else if (queue.length) {
        if (shown === queue[0]) return;
        [shown] = queue;
        showPrompt(shown);
      } else {
        shown = null;
        place?.replaceChildren();
        giveBack(wasInside);
        return;
      }
      if (wasInside) enter();
    }

    const hint = () => element("p", { class: "hint" }, say("shortcut", { keys: SHORTCUT }));

    function showPrompt(prompt) {
      const rework = prompt.kind === "rework" && prompt.task && prompt.annotation;
      const title = say(rework ? "rework_title" : "prompt_title");
      card(
        rework ? "rework" : "prompt",
        title,
        [
          element("p", { id: "text" }, prompt.text),
          element(
            "div",
            { class: "actions" },
            rework
              ? button("open_again", "main", async () => {
                  // Acknowledging may fail; the annotator's way to the task must not.
                  answer(prompt, "acknowledge").catch(() => {});
                  next(prompt);
                  await openAgain(prompt.project, prompt);
                })
              : button("got_it", "main", () => {
                  answer(prompt, "acknowledge").catch(() => {});
                  next(prompt);
                }),
            button("wrong", "plain", () => showDispute(prompt)),
            rework ? button("later", "plain", () => next(prompt)) : null,
          ),
          hint(),
        ],
        leave,
      );
      announce(`${title}. ${prompt.text}`);
      answer(prompt, "seen").catch(() => {});
    }

    function showDispute(prompt) {
      const problem = element("p", { class: "problem", role: "alert" });
      const words = element("textarea", { id: "words", rows: "4", maxlength: DISPUTE_CHARS, "aria-describedby": "why" });
      const send = button("send", "main", async () => {
        if (!words.value.trim()) return words.focus();
        send.disabled = true;
        try {
          await answer(prompt, "dispute", { words: words.value });
        } catch {
          problem.textContent = say("not_sent");
          send.disabled = false;
          return undefined;
        }
        note = say("thanks");
        next(prompt);
        setTimeout(guarded(() => { note = null; show(); }), 4000);
        return undefined;
      });
      card(
        "prompt",
        say("prompt_title"),
        [
          element("p", { id: "text", class: "quoted" }, prompt.text),
          element("label", { for: "words" }, say("wrong_label")),
          words,
          element("p", { id: "why", class: "why" }, say("wrong_hint")),
          problem,
          element("div", { class: "actions" }, send, button("cancel", "plain", () => { showPrompt(prompt); enter(); })),
        ],
        leave,
      );
      words.focus();
    }

    function showBlock() {
      const title = say("block_title");
      card(
        "block",
        title,
        [
          element("ul", { id: "text" }, ...blocks.map((text) => element("li", {}, text))),
          element("p", { class: "why" }, say("block_intro")),
          element("div", { class: "actions" }, button("back", "main", leave)),
          hint(),
        ],
        leave,
      );
      announce(`${title}. ${blocks.join(" ")}`);
    }

    const answer = (prompt, what, body = {}) =>
      ask(prompt.project, "POST", `page/v1/prompts/${encodeURIComponent(prompt.id)}/${what}`, { body });

    function next(prompt) {
      handled.add(prompt.id);
      const at = queue.indexOf(prompt);
      if (at >= 0) queue.splice(at, 1);
      show();
    }

    // Closed without an answer: it waits, and is shown again another time.
    function leave() {
      if (blocks) blocks = null;
      else if (note) note = null;
      else if (shown) return next(shown);
      return show();
    }

    window.addEventListener(
      "keydown",
      guarded((event) => {
        if (!event.altKey || event.ctrlKey || event.metaKey || event.code !== "KeyG") return;
        if (!place?.firstChild) return;
        event.preventDefault();
        event.stopPropagation();
        enter();
      }),
      true,
    );

    new MutationObserver(guarded(() => { if (host) build(); })).observe(document.documentElement, {
      attributes: true,
      attributeFilter: ["data-color-scheme"],
    });

    return {
      add: guarded((project, prompt) => {
        if (typeof prompt?.id !== "string" || typeof prompt.text !== "string" || !prompt.text) return;
        // Opened again by its link, the annotation is what they are looking at already.
        const open = Number(new URLSearchParams(location.search).get("annotation"));
        if (prompt.kind === "rework" && open && open === prompt.annotation) return;
        if (handled.has(prompt.id) || queue.some((waiting) => waiting.id === prompt.id)) return;
        const id = (value) => (Number.isInteger(value) ? value : null);
        queue.push({ ...prompt, project, task: id(prompt.task), annotation: id(prompt.annotation) });
        show();
      }),
      block: guarded((reasons) => {
        blocks = reasons;
        show();
      }),
      dropBlock: guarded(() => {
        if (!blocks) return;
        blocks = null;
        show();
      }),
    };
  })();

  watchSaves();
  setInterval(lookAround, 500);
})();
