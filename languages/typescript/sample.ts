import { readFileSync } from "fs";

const sum = (xs: number[]): number => xs.reduce((a, b) => a + b, 0);

console.log(sum(readFileSync(0, "utf8").trim().split(/\s+/).map(Number)));
