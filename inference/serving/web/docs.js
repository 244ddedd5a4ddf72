"use strict";
// The page at /docs: the OpenAPI schema as text. Contacts no other host.

document.getElementById("png-example").textContent =
  `curl ${location.origin}/v1/segment -H "Content-Type: image/png" --data-binary @slice.png -o mask.png`;
document.getElementById("json-example").textContent =
  `curl ${location.origin}/v1/segment -H "Accept: application/json" -F image=@slice.png`;

function createElement(name, text = "", className = "") {
  return Object.assign(document.createElement(name), { textContent: text, className });
}

function createTable(columns, rows) {
  const table = createElement("table");
  const header = table.createTHead().insertRow();
  for (const column of columns) header.append(Object.assign(createElement("th", column), { scope: "col" }));
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const text of row) line.insertCell().textContent = text;
  }
  return table;
}

function typeName(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeName).join(" or ");
  if (schema.type === "array") return schema.prefixItems ? schema.prefixItems.map(typeName).join(", ") : `${typeName(schema.items)} …`;
  if (schema.type === "object" && schema.additionalProperties) return `${typeName(schema.additionalProperties)} by name`;
  return schema.type || "any";
}

function endpointSection(path, method, operation) {
  const section = createElement("section", "", "endpoint");
  const title = createElement("h2");
  title.append(createElement("span", `${method.toUpperCase()} `, "method"), createElement("code", path));
  section.append(title, createElement("p", operation.description || operation.summary));
  if (operation.requestBody) {
    section.append(createElement("p", `Body: ${Object.keys(operation.requestBody.content).join(", ")}`));
  }
  const responses = Object.entries(operation.responses).map(([status, response]) => {
    const contents = Object.entries(response.content || {});
    const types = contents.map(([contentType, { schema }]) => `${contentType}: ${typeName(schema)}`);
    return [status, response.description, types.join("\n")];
  });
  section.append(createTable(["Status", "Meaning", "Content"], responses));
  return section;
}

function schemaSection(name, schema) {
  const section = createElement("section", "", "endpoint");
  section.append(createElement("h2", name), createElement("p", schema.description || ""));
  const fields = Object.entries(schema.properties || {}).map(([field, property]) =>
    [field, typeName(property), property.description || ""]);
  section.append(createTable(["Field", "Type", "Meaning"], fields));
  return section;
}

async function showReference() {
  const openapi = await (await fetch("/openapi.json")).json();
  const endpoints = Object.entries(openapi.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => endpointSection(path, method, operation)));
  const schemas = Object.entries(openapi.components.schemas).map(([name, schema]) => schemaSection(name, schema));
  document.getElementById("reference").replaceChildren(...endpoints, createElement("h2", "JSON schemas"), ...schemas);
}

showReference().catch(() => {
  document.getElementById("reference").textContent = "The OpenAPI schema cannot be loaded: is the service still running?";
});
