"""One question, one answer: no tool, no program of its own, no network but the model's."""

import httpx
import verifiers.v1 as vf

#: Seconds that one answer may take.
LIMIT = 1800.0


class OneAnswerConfig(vf.HarnessConfig):
    """Nothing to set."""


class OneAnswerHarness(vf.Harness[OneAnswerConfig]):
    """Sends the messages of a task to the interception endpoint once, in this process."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Ask; what comes back is in the trace, which the interception records."""
        system, prompt = self.resolve_prompt(data)
        said = [] if system is None else [{"role": "system", "content": system}]
        said.append({"role": "user", "content": prompt})
        async with httpx.AsyncClient(timeout=LIMIT) as client:
            reply = await client.post(
                f"{endpoint.rstrip('/')}/chat/completions",
                headers={"Authorization": f"Bearer {secret}"},
                json={"model": ctx.model, "messages": said},
            )
        failed = reply.status_code >= 400
        return vf.ProgramResult(int(failed), "", reply.text[-2000:] if failed else "")
