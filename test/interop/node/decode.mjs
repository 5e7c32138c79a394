// Decodes files by the rules of docs/WIRE.md, and prints a line of JSON for each:
// whether it is an envelope, and what its headers are.
//
//	node decode.mjs FILE...
import { readFile } from "node:fs/promises";
import { decode, Malformed, projection } from "./wire.mjs";

for (const file of process.argv.slice(2)) {
  try {
    console.log(JSON.stringify({ file, headers: projection(decode(await readFile(file))) }));
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    console.log(JSON.stringify({ file, refused: error.message }));
  }
}
