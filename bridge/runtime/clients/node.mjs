// Client of Lambda's Runtime API for Node.js 20 and later: loads a function's handler, gives it events, posts answers.
//
// What a handler sees (arguments, context, awslambda, console lines, error shapes, exit codes) is what AWS's own
// client shows it. One connection to the bridge's own loopback server; only what that server says is understood.

import { Buffer } from "node:buffer";
import { existsSync, readFileSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import path from "node:path";
import { Writable } from "node:stream";
import { pathToFileURL } from "node:url";
import { format, types } from "node:util";

const {
  _HANDLER: HANDLER = "",
  LAMBDA_TASK_ROOT: TASK_ROOT = process.cwd(),
  AWS_LAMBDA_RUNTIME_API: API = "",
} = process.env;
const BASE = "/2018-06-01/runtime";
const STREAMING = Symbol.for("aws.lambda.runtime.handler.streaming");
const HTTP_ANSWER = "application/vnd.awslambda.http-integration-response";
const PRELUDE_END = Buffer.alloc(8);
const EXIT_REJECTION = 128;
const EXIT_EXCEPTION = 129;

// --- log -------------------------------------------------------------------------------------------------------

const LEVELS = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
const AS_JSON = (process.env.AWS_LAMBDA_LOG_FORMAT || "").toUpperCase() === "JSON";
const LEAST = AS_JSON ? Math.max(0, LEVELS.indexOf((process.env.AWS_LAMBDA_LOG_LEVEL || "TRACE").toUpperCase())) : 0;
let requestId;

/** Writes all of it now: a line must be in the log even if the process ends next. */
function writeLog(text) {
  let data = Buffer.from(text);
  while (data.length) {
    try {
      data = data.subarray(writeSync(1, data));
    } catch (error) {
      if (error.code !== "EAGAIN") return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

function log(level, ...parts) {
  if (LEVELS.indexOf(level) < LEAST) return;
  const timestamp = new Date().toISOString();
  if (AS_JSON) {
    writeLog(JSON.stringify({ timestamp, level, requestId, ...jsonFields(parts) }) + "\n");
  } else {
    // One record, whatever lines it has.
    writeLog(`${timestamp}\t${requestId}\t${level}\t${format(...parts)}`.replace(/\n/g, "\r") + "\n");
  }
}

function jsonFields(parts) {
  const [only] = parts;
  if (parts.length === 1 && !types.isNativeError(only)) {
    try {
      if (JSON.stringify(only) !== undefined) return { message: only };
    } catch {
      // as text, below
    }
  }
  const fields = { message: format(...parts) };
  const error = parts.find((part) => types.isNativeError(part));
  if (error) {
    const { errorType, errorMessage, trace } = described(error);
    Object.assign(fields, { errorType, errorMessage, stackTrace: trace });
  }
  return fields;
}

for (const [name, level] of Object.entries({
  trace: "TRACE", debug: "DEBUG", info: "INFO", log: "INFO", warn: "WARN", error: "ERROR", fatal: "FATAL",
})) {
  console[name] = (...parts) => log(level, ...parts);
}

// --- errors ----------------------------------------------------------------------------------------------------

function fault(name, message) {
  return Object.assign(new Error(message), { name });
}

function isError(thrown) {
  return types.isNativeError(thrown) || (thrown && thrown.name && thrown.message && thrown.stack);
}

/** What the caller gets of a thrown value. */
function described(thrown) {
  try {
    if (isError(thrown)) {
      return {
        errorType: String(thrown.name),
        errorMessage: String(thrown.message),
        trace: String(thrown.stack || "").replaceAll(import.meta.url, "file:///var/runtime/index.mjs").split("\n"),
      };
    }
    return { errorType: typeof thrown, errorMessage: String(thrown), trace: [] };
  } catch {
    return {
      errorType: "handled",
      errorMessage:
        "callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack",
      trace: [],
    };
  }
}

/** What the log gets of it: its own fields too. */
function logged(thrown) {
  const { errorType, errorMessage, trace } = described(thrown);
  const own = {};
  if (isError(thrown)) {
    for (const key of Object.keys(thrown)) if (key !== "name") own[key] = thrown[key];
  }
  try {
    return "\t" + JSON.stringify({ errorType, errorMessage, ...own, stack: trace });
  } catch {
    return "\t" + JSON.stringify({ errorType, errorMessage, stack: trace });
  }
}

// --- the Runtime API -------------------------------------------------------------------------------------------

/** One keep-alive connection, one request at a time. */
class Connection {
  #socket;
  #pieces = [];
  #size = 0;
  #wanted = 0;
  #answered;

  open() {
    const [host, port] = API.split(":");
    return new Promise((resolve, reject) => {
      this.#socket = net.connect({ host, port: Number(port), noDelay: true }, resolve);
      this.#socket.on("error", reject);
      this.#socket.on("data", (data) => this.#take(data));
      this.#socket.on("close", () => process.exit(1));
    });
  }

  /** Resolves to { status, headers, body }. An open request alone keeps the process alive. */
  ask(method, where, body, headers = {}) {
    const data = body === undefined ? undefined : Buffer.from(body);
    let head = `${method} ${BASE}${where} HTTP/1.1\r\nHost: ${API}\r\n`;
    for (const [name, value] of Object.entries(headers)) head += `${name}: ${value.replace(/[\r\n]/g, " ")}\r\n`;
    head += data === undefined ? "\r\n" : `Content-Length: ${data.length}\r\n\r\n`;
    this.#socket.ref();
    if (data === undefined || data.length > 65536) {
      this.#socket.write(head, "latin1");
      if (data !== undefined) this.#socket.write(data);
    } else {
      this.#socket.write(Buffer.concat([Buffer.from(head, "latin1"), data]));
    }
    return new Promise((resolve) => {
      this.#answered = resolve;
    });
  }

  #take(data) {
    this.#pieces.push(data);
    this.#size += data.length;
    if (this.#size < this.#wanted) return;
    const all = this.#pieces.length === 1 ? data : Buffer.concat(this.#pieces);
    this.#pieces = [all];
    const end = all.indexOf("\r\n\r\n");
    if (end < 0) return;
    const lines = all.latin1Slice(0, end).split("\r\n");
    const headers = {};
    for (const line of lines.slice(1)) {
      const colon = line.indexOf(":");
      headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
    }
    this.#wanted = end + 4 + Number(headers["content-length"] || 0);
    if (all.length < this.#wanted) return;
    const body = all.subarray(end + 4, this.#wanted);
    this.#pieces = [];
    this.#size = this.#wanted = 0;
    this.#socket.unref();
    this.#answered({ status: Number(lines[0].split(" ")[1]), headers, body });
  }
}

const api = new Connection();

// --- the handler -----------------------------------------------------------------------------------------------

/** Resolves to the function that `dir/module.name` means; a dot in `name` leads into an object. */
async function loadHandler() {
  if (HANDLER.includes("..")) {
    const hint = "is not a valid handler name. Use absolute paths when specifying root directories in handler names.";
    throw fault("Runtime.MalformedHandlerName", `'${HANDLER}' ${hint}`);
  }
  const file = path.posix.basename(HANDLER);
  const folder = HANDLER.slice(0, HANDLER.length - file.length);
  const dot = file.indexOf(".");
  if (dot < 0) throw fault("Runtime.MalformedHandlerName", "Bad handler");
  const module = await loadModule(path.resolve(TASK_ROOT, folder, file.slice(0, dot)), folder + file.slice(0, dot));
  let found = module;
  for (const name of file.slice(dot + 1).split(".")) found = found?.[name];
  if (found === undefined && module.default) {
    found = module.default;
    for (const name of file.slice(dot + 1).split(".")) found = found?.[name];
  }
  if (!found) throw fault("Runtime.HandlerNotFound", `${HANDLER} is undefined or not exported`);
  if (typeof found !== "function") throw fault("Runtime.HandlerNotFound", `${HANDLER} is not a function`);
  return found;
}

async function loadModule(stem, name) {
  const require = createRequire(path.join(TASK_ROOT, "handler.js"));
  try {
    const isModule = typeOfPackage(path.dirname(stem)) === "module";
    if (existsSync(`${stem}.js`)) {
      return isModule ? await import(pathToFileURL(`${stem}.js`)) : require(`${stem}.js`);
    }
    if (existsSync(`${stem}.mjs`)) return await import(pathToFileURL(`${stem}.mjs`));
    if (existsSync(`${stem}.cjs`)) return require(`${stem}.cjs`);
    if (existsSync(`${stem}/index.js`)) return require(stem);
    return require(name); // of node_modules, or of a layer
  } catch (error) {
    if (error instanceof SyntaxError) throw fault("Runtime.UserCodeSyntaxError", String(error));
    if (error?.code === "MODULE_NOT_FOUND" || error?.code === "ERR_MODULE_NOT_FOUND") {
      throw fault("Runtime.ImportModuleError", String(error));
    }
    throw error;
  }
}

/** Reads `type` of the nearest package.json, up to the task root. */
function typeOfPackage(folder) {
  for (; ; folder = path.dirname(folder)) {
    const file = path.join(folder, "package.json");
    if (existsSync(file)) {
      try {
        return JSON.parse(readFileSync(file, "utf8")).type;
      } catch {
        return undefined;
      }
    }
    if (folder === TASK_ROOT || folder === path.dirname(folder)) return undefined;
  }
}

// --- streamed answers ------------------------------------------------------------------------------------------

/** What a streaming handler writes to; sent when it has ended. */
class ResponseStream extends Writable {
  pieces = [];
  contentType = "application/octet-stream";
  prelude = undefined;

  setContentType(contentType) {
    this.contentType = contentType;
  }

  _write(chunk, encoding, done) {
    this.#begin();
    this.pieces.push(typeof chunk === "string" ? Buffer.from(chunk, encoding) : Buffer.from(chunk));
    done();
  }

  _final(done) {
    this.#begin();
    done();
  }

  #begin() {
    if (this.prelude !== undefined) this.pieces.push(Buffer.from(this.prelude), PRELUDE_END);
    this.prelude = undefined;
  }
}

globalThis.awslambda = {
  streamifyResponse(handler, options) {
    handler[STREAMING] = true;
    if (options?.highWaterMark) handler.highWaterMark = Number(options.highWaterMark);
    return handler;
  },
  HttpResponseStream: {
    from(stream, prelude) {
      stream.setContentType(HTTP_ANSWER);
      stream.prelude = JSON.stringify(prelude);
      return stream;
    },
  },
};

// --- invocations -----------------------------------------------------------------------------------------------

/** The invocation that runs; undefined: none does. */
let current;

class Invocation {
  isAnswered = false;
  waiting = undefined;
  waitsForEmptyLoop = true;

  constructor(id, ended) {
    this.id = id;
    this.ended = ended;
  }

  /** Posts a result once; the rest is ignored. */
  async answer(body, contentType = "application/json") {
    if (this.isAnswered) return;
    this.isAnswered = true;
    await api.ask("POST", `/invocation/${this.id}/response`, body, { "Content-Type": contentType });
    this.ended();
  }

  async succeed(value) {
    let text;
    try {
      text = JSON.stringify(value === undefined ? null : value) ?? "null";
    } catch {
      await this.fail(new Error("Unable to stringify response body"));
      return;
    }
    await this.answer(text);
  }

  async fail(thrown) {
    if (this.isAnswered) return;
    this.isAnswered = true;
    log("ERROR", "Invoke Error", logged(thrown));
    await this.report(described(thrown));
    this.ended();
  }

  report(error) {
    return api.ask("POST", `/invocation/${this.id}/error`, JSON.stringify(error), {
      "Lambda-Runtime-Function-Error-Type": error.errorType.replace(/[^\x20-\x7e]/g, "?"),
    });
  }

  /** Answers now, or when nothing is left to do, as the context says. */
  settle(action) {
    if (this.waiting !== undefined || this.isAnswered) return;
    this.waiting = action;
    if (!this.waitsForEmptyLoop) setImmediate(action);
  }
}

process.on("beforeExit", () => {
  if (current !== undefined && !current.isAnswered) (current.waiting ?? (() => current.succeed(null)))();
});

for (const [event, label, status] of [
  ["uncaughtException", "Uncaught Exception", EXIT_EXCEPTION],
  ["unhandledRejection", "Unhandled Promise Rejection", EXIT_REJECTION],
]) {
  process.on(event, async (reason) => {
    let thrown = reason;
    if (event === "unhandledRejection") {
      thrown = fault("Runtime.UnhandledPromiseRejection", String(reason?.toString?.() ?? reason));
      if (isError(reason)) thrown.stack = [`${thrown.name}: ${thrown.message}`, ...String(reason.stack).split("\n").slice(1)].join("\n");
    }
    log("ERROR", label, logged(thrown));
    if (current !== undefined && !current.isAnswered) {
      current.isAnswered = true;
      await current.report(described(thrown));
    }
    process.exit(status);
  });
}

function contextOf(headers, invocation) {
  const deadline = Number(headers["lambda-runtime-deadline-ms"]);
  const json = (text) => (text ? JSON.parse(Buffer.from(text, "latin1").toString("utf8")) : undefined);
  const done = (error, value) => {
    if (error === undefined || error === null) invocation.settle(() => invocation.succeed(value));
    else invocation.settle(() => invocation.fail(error));
  };
  const context = {
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: json(headers["lambda-runtime-client-context"]),
    identity: json(headers["lambda-runtime-cognito-identity"]),
    invokedFunctionArn: headers["lambda-runtime-invoked-function-arn"],
    awsRequestId: invocation.id,
    getRemainingTimeInMillis: () => deadline - Date.now(),
    done,
    succeed: (value) => done(null, value),
    fail: (error) => done(error ?? "handled"),
  };
  Object.defineProperty(context, "callbackWaitsForEmptyEventLoop", {
    enumerable: true,
    get: () => invocation.waitsForEmptyLoop,
    set(wanted) {
      invocation.waitsForEmptyLoop = wanted;
    },
  });
  return [context, done];
}

async function stream(handler, event, context, invocation) {
  const out = new ResponseStream({ highWaterMark: handler.highWaterMark });
  const finished = new Promise((resolve, reject) => out.on("finish", resolve).on("error", reject));
  finished.catch(() => {}); // told below, if the handler has not failed before
  try {
    await handler(event, out, context);
    await finished;
  } catch (error) {
    await invocation.fail(error);
    return;
  }
  await invocation.answer(Buffer.concat(out.pieces), out.contentType);
}

async function run(handler, { headers, body }) {
  requestId = headers["lambda-runtime-aws-request-id"];
  const trace = headers["lambda-runtime-trace-id"];
  if (trace) process.env._X_AMZN_TRACE_ID = trace;
  else delete process.env._X_AMZN_TRACE_ID;
  let ended;
  const end = new Promise((resolve) => (ended = resolve));
  const invocation = (current = new Invocation(requestId, ended));
  try {
    const event = JSON.parse(body.toString("utf8"));
    const [context, callback] = contextOf(headers, invocation);
    if (handler[STREAMING]) {
      stream(handler, event, context, invocation);
    } else {
      const result = handler(event, context, callback);
      if (typeof result?.then === "function") {
        result.then(
          (value) => invocation.succeed(value),
          (error) => invocation.fail(error),
        );
      }
    }
  } catch (error) {
    invocation.fail(error);
  }
  await end;
  current = undefined;
}

await api.open();
let handler;
try {
  handler = await loadHandler();
} catch (error) {
  log("ERROR", "Uncaught Exception", logged(error));
  const told = described(error);
  await api.ask("POST", "/init/error", JSON.stringify(told), {
    "Lambda-Runtime-Function-Error-Type": told.errorType.replace(/[^\x20-\x7e]/g, "?"),
  });
  process.exit(1);
}
for (;;) await run(handler, await api.ask("GET", "/invocation/next"));
