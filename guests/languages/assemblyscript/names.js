// What an export is called in WIT is no identifier: asc renames it when all is compiled.
import binaryen from "binaryen";

const IN_WIT = { greet: "example:guests/greeter#greet", handle: "wasi:http/incoming-handler@0.2.3#handle" };

export function afterCompile(module) {
  for (const [name, inWit] of Object.entries(IN_WIT)) {
    const found = module.getExport(name);
    if (!found) continue;
    module.addFunctionExport(binaryen.getExportInfo(found).value, inWit);
    module.removeExport(name);
  }
}
