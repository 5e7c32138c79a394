// Validates an AsyncAPI document with the reference parser: prints its
// diagnostics, one a line, and ends with 1 if there is any error or warning.
//
//	node validate-asyncapi.mjs FILE
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const file = process.argv[2];
const { document, diagnostics } = await new Parser().parse(await readFile(file, "utf8"), { source: file });
const severe = diagnostics.filter((d) => d.severity <= 1); // 0 error, 1 warning
for (const d of severe) console.log(`${d.code} at ${d.path.join(".")}: ${d.message}`);
if (document === undefined) console.log("there is no document");
process.exitCode = severe.length > 0 || document === undefined ? 1 : 0;
