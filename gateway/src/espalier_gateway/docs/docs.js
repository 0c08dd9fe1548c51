// Renders /openapi.json and sends requests from the page. Text from the document is only ever set as text, never as HTML.
"use strict";

const METHODS = ["get", "post", "patch", "put", "delete", "head"];
let api;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element) element[name] = value; else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== ""));
  return element;
}

function resolve(schema) {
  if (!schema || !schema.$ref) return schema || {};
  const found = schema.$ref.slice(2).split("/").reduce((at, key) => at?.[key], api) || {};
  return { ...found, ...schema, $ref: undefined, name: schema.$ref.split("/").pop() };
}

function typeName(schema) {
  const known = resolve(schema);
  if (known.type === "array") return `list of ${typeName(known.items)}`;
  if (known.enum) return known.enum.join(" | ");
  if (known.additionalProperties && known.additionalProperties !== true && !known.properties) {
    return `map to ${typeName(known.additionalProperties)}`;
  }
  return known.name || known.format || known.type || "any";
}

function bounds(schema) {
  const known = resolve(schema);
  const names = ["minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern"];
  return names.filter((name) => known[name] !== undefined).map((name) => `${name} ${known[name]}`).join(", ");
}

function example(schema, depth = 0) {
  const known = resolve(schema);
  if (known.enum) return known.enum[known.enum.length > 1 ? 1 : 0];
  if (known.type === "array") return depth > 4 ? [] : [example(known.items, depth + 1)];
  if (known.type === "object") {
    if (depth > 4) return {};
    const chosen = new Set();
    const fields = Object.entries(known.properties || {}).filter(([name, each]) => {
      if ((each.type === "string" && (each.format || each.pattern)) || chosen.has(each["x-oneof"])) return (known.required || []).includes(name);
      if (each["x-oneof"]) chosen.add(each["x-oneof"]);
      return true;
    });
    return Object.fromEntries(fields.map(([name, each]) => [name, example(each, depth + 1)]));
  }
  if (known.type === "boolean") return false;
  if (known.anyOf) return example(known.anyOf[0], depth);
  if (known.type === "integer" || known.type === "number") return known.minimum > 0 ? known.minimum : 0;
  return "";
}

function table(headings, rows) {
  const head = make("tr", {}, ...headings.map((text) => make("th", { textContent: text })));
  const body = rows.map((cells) => make("tr", {}, ...cells.map((text) => make("td", { textContent: text }))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

function fieldsTable(schema) {
  const known = resolve(schema);
  const rows = Object.entries(known.properties || {}).map(([name, each]) => [
    name + ((known.required || []).includes(name) ? " *" : ""), typeName(each) + (each["x-oneof"] ? ` (one of ${each["x-oneof"]})` : ""), each.description || resolve(each).description || "", bounds(each),
  ]);
  return rows.length ? table(["field", "type", "meaning", "bounds"], rows) : make("p", { textContent: typeName(schema) });
}

function contentOf(part) {
  const [type, content] = Object.entries(part?.content || {})[0] || [];
  return { type, schema: content?.schema };
}

function operationBody(path, method, operation, shared) {
  const parameters = [...shared, ...(operation.parameters || [])];
  const parts = [make("p", { className: "description", textContent: operation.description || operation.summary || "" })];
  if (parameters.length) {
    parts.push(make("h4", { textContent: "Parameters" }), table(["name", "in", "type", "meaning", "bounds"], parameters.map((each) => [
      each.name + (each.required ? " *" : ""), each.in, typeName(each.schema), each.description || "", bounds(each.schema),
    ])));
  }
  const body = contentOf(operation.requestBody);
  if (body.schema) parts.push(make("h4", { textContent: `Body (${body.type})` }), fieldsTable(body.schema));
  for (const [status, response] of Object.entries(operation.responses)) {
    if (!status.startsWith("2")) continue;
    const answer = contentOf(response);
    parts.push(make("h4", { textContent: `${status} ${answer.type || ""}` }), make("p", { textContent: response.description }));
    if (answer.schema) parts.push(fieldsTable(answer.schema));
  }
  const problems = Object.keys(operation.responses).filter((status) => status >= "400").join(", ");
  parts.push(make("p", { textContent: `Problems: ${problems}` }), tryIt(path, method, parameters, body));
  return make("div", {}, ...parts);
}

function tryIt(path, method, parameters, body) {
  const inputs = parameters.map((each) => ({ each, input: make("input", { placeholder: typeName(each.schema) }) }));
  const text = body.schema && body.type === "application/json"
    ? make("textarea", { value: JSON.stringify(example(body.schema), null, 2), spellcheck: false, ariaLabel: "Body" }) : undefined;
  const file = body.schema && body.type !== "application/json" ? make("input", { type: "file" }) : undefined;
  const output = make("pre", { hidden: true });
  const stop = make("button", { type: "button", textContent: "Stop", hidden: true });
  const form = make("form", { className: "try" }, make("h4", { textContent: "Try it" }),
    ...inputs.map(({ each, input }) => make("label", {}, `${each.name} (${each.in})`, input)),
    text, file, make("div", { className: "row" }, make("button", { textContent: "Send" }), stop), output);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send({ path, method, inputs, content: text ? text.value : file?.files[0], type: body.type, output, stop });
  });
  return form;
}

function requestOf({ path, method, inputs, content, type }) {
  const query = new URLSearchParams();
  const headers = {};
  let address = path;
  for (const { each, input } of inputs) {
    if (input.value === "") continue;
    if (each.in === "path") address = address.replace(`{${each.name}}`, encodeURIComponent(input.value));
    else if (each.in === "query") query.append(each.name, input.value);
    else headers[each.name] = input.value;
  }
  const token = document.getElementById("token").value.trim();
  if (token) headers.Authorization = `Bearer ${token}`;
  const csrf = document.cookie.split("; ").find((pair) => /^(__Host-)?espalier_csrf=/.test(pair));
  if (!token && csrf && !["get", "head"].includes(method)) headers["X-CSRF-Token"] = csrf.slice(csrf.indexOf("=") + 1);
  if (content !== undefined) headers["Content-Type"] = type;
  const search = query.toString();
  return [address + (search ? `?${search}` : ""), { method: method.toUpperCase(), headers, body: content }];
}

async function send(call) {
  const { output, stop } = call;
  const control = new AbortController();
  stop.hidden = false;
  stop.onclick = () => control.abort();
  output.hidden = false;
  output.textContent = "…";
  try {
    const [address, options] = requestOf(call);
    const response = await fetch(address, { ...options, signal: control.signal });
    output.textContent = `${options.method} ${address}\n${response.status} ${response.statusText}  (request ${response.headers.get("x-request-id")})\n\n`;
    if ((response.headers.get("content-type") || "").startsWith("text/event-stream")) await follow(response, output);
    else output.textContent += pretty(await response.text());
  } catch (error) {
    output.textContent += `\n${error.name === "AbortError" ? "Stopped." : error}`;
  }
  stop.hidden = true;
}

async function follow(response, output) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    output.textContent = (output.textContent + part.value).slice(-200000);
    output.scrollTop = output.scrollHeight;
  }
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text.slice(0, 200000); }
}

function operationElement({ path, method, operation, shared }) {
  const element = make("details", { id: operation.operationId }, make("summary", {},
    make("span", { className: "method", textContent: method.toUpperCase() }),
    make("span", { className: "path", textContent: path }),
    make("span", { className: "brief", textContent: operation.summary || "" }),
    make("span", { className: "permission", textContent: operation["x-permission"] || "" })));
  element.addEventListener("toggle", () => {
    if (element.open && element.children.length === 1) element.append(operationBody(path, method, operation, shared));
  });
  return element;
}

function allOperations() {
  return Object.entries(api.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method]).map((method) => (
    { path, method, operation: item[method], shared: item.parameters || [] })));
}

function show() {
  const wanted = document.getElementById("find").value.toLowerCase();
  const fits = (each) => [each.path, each.operation.operationId, each.operation.description, each.operation["x-permission"]]
    .some((text) => (text || "").toLowerCase().includes(wanted));
  const found = allOperations().filter(fits);
  const sections = api.tags.map((tag) => [tag, found.filter((each) => each.operation.tags.includes(tag.name))])
    .filter(([, operations]) => operations.length)
    .map(([tag, operations]) => make("section", { id: `service-${tag.name}` }, make("h2", { textContent: tag.name }),
      make("p", { textContent: tag.description || "" }), ...operations.map(operationElement)));
  document.getElementById("operations").replaceChildren(...(sections.length ? sections : [make("p", { textContent: "Nothing found." })]));
}

async function start() {
  const response = await fetch("/openapi.json");
  if (!response.ok) {
    document.getElementById("state").textContent = `/openapi.json answered ${response.status}; sign in first.`;
    return;
  }
  api = await response.json();
  document.getElementById("about").textContent = api.info.description;
  document.getElementById("index").replaceChildren(...api.tags.map((tag) => make("a", { href: `#service-${tag.name}`, textContent: tag.name })));
  document.getElementById("find").addEventListener("input", show);
  document.getElementById("settings").addEventListener("submit", (event) => event.preventDefault());
  show();
  const linked = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (linked?.tagName === "DETAILS") { linked.open = true; linked.scrollIntoView(); }
}

start();
