// Validates AsyncAPI documents with the reference parser: prints its diagnostics,
// one a line behind the file's name, and ends with 1 if there is any.
//
//	node validate-asyncapi.mjs FILE...
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const parser = new Parser();
for (const file of process.argv.slice(2)) {
  const { document, diagnostics } = await parser.parse(await readFile(file, "utf8"), { source: file });
  const faults = diagnostics.filter((d) => d.severity <= 1) // 0 error, 1 warning
    .map((d) => `${d.code} at ${d.path.join(".")}: ${d.message}`);
  if (document === undefined && faults.length === 0) faults.push("there is no document");
  for (const fault of faults) console.log(`${file}: ${fault}`);
  if (faults.length > 0) process.exitCode = 1;
}
