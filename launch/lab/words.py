"""Every sentence of a lab's report, in English and Chinese; numbers are put into both alike.

say = Say("zh")
say("took", n=3)
"""

from __future__ import annotations

from relaunch.launch.lab.sentences import CIFAR, MNIST, TINY, WIKI

LANGUAGES = ("en", "zh")

COMMON = {
    "made": (
        "Made by {again} on {date}: every number below was measured by the commands at the end of this page.",
        "由 {again} 于 {date} 生成：下面的每个数字都由本页末尾的命令测得。",
    ),
    "quick": (
        "This is the quick form: few samples and few repeats, enough to see every part work. Its figures "
        "are not the lab's; {whole} measures those.",
        "这是快速版：样本少、重复少，只够看到每个部分都能运行。这些数字不是实验的正式结果；正式结果请运行"
        " {whole}。",
    ),
    "environment": ("Environment", "实验环境"),
    "cpu": ("CPU", "CPU"),
    "vcpus": ("vCPUs", "vCPU 数量"),
    "vcpus_are": ("{n} ({physical} physical cores usable)", "{n}（可用物理核 {physical} 个）"),
    "memory": ("memory", "内存"),
    "gpu": ("GPU", "GPU"),
    "no_gpu": ("none", "无"),
    "os": ("operating system", "操作系统"),
    "framework": ("framework", "框架"),
    "packages": ("packages", "软件包版本"),
    "cuda": ("CUDA", "CUDA"),
    "cuda_is": (
        "{version} (PyTorch's build); driver {driver}",
        "{version}（PyTorch 构建版本）；驱动 {driver}",
    ),
    "no_driver": ("none", "无"),
    "where_from": ("Where each run was trained", "各次训练所在的机器"),
    "run": ("run", "运行"),
    "host": ("machine", "机器"),
    "device": ("device", "设备"),
    "precision": ("precision", "精度"),
    "threads": ("threads", "线程数"),
    "data": ("data", "数据集"),
    "splits": ("split", "划分"),
    "count": ("samples", "样本数"),
    "words_count": ("words", "词数"),
    "classes": ("classes", "类别数"),
    "source": ("source", "来源"),
    "embedded": ("{recipe}: comes with the installed packages", "{recipe}：随已安装的软件包提供"),
    "network": ("The network", "神经网络"),
    "graph": ("Data-flow graph", "数据流图"),
    "layers": (
        "Layers: name, output size, weights and arithmetic for one input",
        "各层名称、输出大小、参数量与单个输入的计算量",
    ),
    "layer": ("layer", "层"),
    "type": ("type", "类型"),
    "output": ("output", "输出大小"),
    "weights": ("weights", "参数量"),
    "flops": ("FLOPs", "FLOPs"),
    "total": ("total", "合计"),
    "curves": ("Loss and accuracy", "损失与正确率"),
    "train": ("train", "训练"),
    "test": ("test", "测试"),
    "epoch": ("epoch", "轮数"),
    "epochs": ("epochs", "训练轮数"),
    "steps": ("steps", "步数"),
    "loss": ("loss", "损失"),
    "accuracy": ("top-1 accuracy", "正确率（top-1）"),
    "top5": ("top-5 accuracy", "前五正确率（top-5）"),
    "time": ("time", "用时"),
    "speed": ("samples/s", "样本/秒"),
    "busy": ("CPU load", "CPU 占用"),
    "cores": ("{n} cores", "{n} 核"),
    "batch": ("batch size", "批大小"),
    "reading": ("Reading of the results", "结果分析"),
    "spent": ("Where the time went", "时间花在哪里"),
    "cause_start": ("start", "启动"),
    "cause_input": ("input wait", "等待数据"),
    "cause_compute": ("forward+backward", "前向与反向"),
    "cause_optimizer": ("optimizer", "优化器"),
    "cause_communication": ("communication", "通信"),
    "cause_evaluation": ("evaluation", "评估"),
    "cause_checkpoint": ("checkpoint", "检查点"),
    "cause_repeated": ("repeated steps", "重复的步"),
    "cause_restarts": ("restarts", "重新启动"),
    "cause_other": ("other", "其他"),
    "share": ("share", "占比"),
    "commands": ("The commands that were run", "运行过的命令"),
    "references": ("References", "参考资料"),
    "gpus": (
        "Not measured: {name} needs {asked} GPU(s), and this machine has {here}. On a machine that has "
        "them, type the command below in the same folder; then copy {leaves} back to the same place here "
        "and type {again}: only what is missing is done.",
        "未测量：{name} 需要 {asked} 块 GPU，本机有 {here} 块。请在有 GPU 的机器上、在同样的目录中运行下"
        "面的命令；然后把 {leaves} 复制回本机的同一位置，再运行 {again}：只会补做缺少的部分。",
    ),
    "other": (
        "Not shown: {path} holds a run with other settings ({name} {was}, and the lab has {now}). Move "
        "it away, and {again} makes the lab's own.",
        "未显示：{path} 中的运行设置不同（{name} 为 {was}，实验要求 {now}）。把它移走后运行 {again} 即可"
        "重做。",
    ),
    "unreadable": (
        "Not shown: {path} cannot be read ({what}). Move it away, and {again} makes the lab's own.",
        "未显示：无法读取 {path}（{what}）。把它移走后运行 {again} 即可重做。",
    ),
    "failed": (
        "Not done: {name} ended with code {code}: {said}. Its log is {log}; {again} tries it again.",
        "未完成：{name} 以代码 {code} 结束：{said}。日志在 {log}；运行 {again} 会重试。",
    ),
    "lacks": ("Left out: {step} reads what {name} would have left.", "略过：{step} 需要 {name} 的结果。"),
}

WORDS = COMMON | MNIST | TINY | CIFAR | WIKI


class Say:
    """The sentences of one language."""

    def __init__(self, lang: str):
        self.lang, self._which = lang, LANGUAGES.index(lang)

    def __call__(self, key: str, **facts) -> str:
        return WORDS[key][self._which].format(**facts)
