"use strict";
// The docs page: openapi.json as text. Loads nothing from elsewhere.

const here = location.origin;
document.getElementById("png").textContent =
  `curl ${here}/v1/segment -H "Content-Type: image/png" --data-binary @slice.png -o mask.png`;
document.getElementById("json").textContent =
  `curl ${here}/v1/segment -H "Accept: application/json" -F image=@slice.png`;

function element(name, text = "", className = "") {
  return Object.assign(document.createElement(name), { textContent: text, className });
}

function table(heads, rows) {
  const made = element("table");
  const head = made.createTHead().insertRow();
  for (const text of heads) head.append(Object.assign(element("th", text), { scope: "col" }));
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const text of row) line.insertCell().textContent = text;
  }
  return made;
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.type === "array") return schema.prefixItems ? schema.prefixItems.map(typeOf).join(", ") : `${typeOf(schema.items)} …`;
  if (schema.type === "object" && schema.additionalProperties) return `${typeOf(schema.additionalProperties)} by name`;
  return schema.type || "anything";
}

function call(path, method, told) {
  const made = element("section", "", "call");
  const title = element("h2");
  title.append(element("span", `${method.toUpperCase()} `, "method"), element("code", path));
  made.append(title, element("p", told.description || told.summary));
  if (told.requestBody) made.append(element("p", `Body: ${Object.keys(told.requestBody.content).join(", ")}`));
  const answers = Object.entries(told.responses).map(([status, answer]) => {
    const kinds = Object.entries(answer.content || {});
    return [status, answer.description, kinds.map(([kind, { schema }]) => `${kind}: ${typeOf(schema)}`).join("\n")];
  });
  made.append(table(["Status", "Meaning", "Content"], answers));
  return made;
}

function shape(name, schema) {
  const made = element("section", "", "call");
  made.append(element("h2", name), element("p", schema.description || ""));
  const fields = Object.entries(schema.properties || {}).map(([field, told]) => [field, typeOf(told), told.description || ""]);
  made.append(table(["Field", "Type", "Meaning"], fields));
  return made;
}

async function show() {
  const told = await (await fetch("/openapi.json")).json();
  const calls = Object.entries(told.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, text]) => call(path, method, text)));
  const shapes = Object.entries(told.components.schemas).map(([name, schema]) => shape(name, schema));
  document.getElementById("calls").replaceChildren(...calls, element("h2", "What is in JSON"), ...shapes);
}

show().catch(() => {
  document.getElementById("calls").textContent = "The description cannot be loaded: is the service still running?";
});
