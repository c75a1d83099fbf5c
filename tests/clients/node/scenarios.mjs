// Runs every scenario given and prints what each ended in, as one JSON object.

export async function report(scenarios) {
  const outcome = {};
  for (const [name, scenario] of Object.entries(scenarios)) {
    try {
      outcome[name] = { value: await scenario() };
    } catch (error) {
      outcome[name] = { error: `${error?.stack ?? error}` };
    }
  }
  console.log(JSON.stringify(outcome));
}

export const WEATHER = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

// What the tool that the model calls answers.
export const weather = ({ city }) => `20 degrees in ${city}`;
